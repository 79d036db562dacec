#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "longhand/error.h"
#include "longhand/text.h"
#include "src/text/lexicon.h"
#include "src/text/words.h"

namespace longhand {
namespace {

// SentencePiece writes a blank as U+2581, so that character itself, met in a text, would come back as a blank.
constexpr std::string_view blank_mark = "\xE2\x96\x81";

// SentencePiece's lattice grows with its input: long lines are cut. The cut is before a blank where there is one,
// because no piece has a blank inside; elsewhere the text comes out the same, in other pieces.
constexpr size_t longest_chunk = 1 << 16;

size_t chunk_end(std::string_view line, size_t first) {
  if (line.size() - first <= longest_chunk) return line.size();
  size_t end = first + longest_chunk;
  for (size_t i = end; i > first + longest_chunk / 2; --i)
    if (line[i] == ' ' && line[i - 1] != ' ') return i;
  while (end > first + 1 && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) --end;
  return end;
}

}  // namespace

struct Tokenizer::State {
  std::optional<WordVocabulary> words;  // in place of all that follows
  std::string model;
  sentencepiece::SentencePieceProcessor processor;
  Lexicon lexicon;  // whose terms follow the pieces
  int32_t pieces = 0;
  std::vector<std::string> bytes;  // of each token
  int32_t byte_token[256];         // -1 where the model has no byte fallback
  int32_t line_break = -1;         // the symbol for "\n", which makes the model one of ours: exact for every text
  bool has_blank = false;          // a piece for a single blank exists
  bool leading_blank = false;      // the model puts a blank before every text; decode() takes it away

  void append(std::string_view text, std::vector<int32_t>& ids) const {
    if (text.empty()) return;
    std::vector<int> part;
    auto status = processor.Encode(text, &part);
    if (!status.ok()) fail("tokenizer: {}", status.ToString());
    ids.insert(ids.end(), part.begin(), part.end());
  }

  void append_bytes(std::string_view text, std::vector<int32_t>& ids) const {
    for (char c : text) ids.push_back(byte_token[static_cast<unsigned char>(c)]);
  }

  // Characters that SentencePiece would not give back go around it, as bytes.
  void append_exactly(std::string_view line, std::vector<int32_t>& ids) const {
    size_t first = 0;
    for (size_t i = 0; i < line.size();) {
      size_t special = line.substr(i, 3) == blank_mark ? 3 : !has_blank && line[i] == ' ' ? 1 : 0;
      if (special) {
        append(line.substr(first, i - first), ids);
        append_bytes(line.substr(i, special), ids);
        first = i + special;
      }
      i += std::max<size_t>(special, 1);
    }
    append(line.substr(first), ids);
  }

  void append_pieces(std::string_view line, std::vector<int32_t>& ids) const {
    for (size_t first = 0; first < line.size();) {
      size_t end = chunk_end(line, first);
      std::string_view chunk = line.substr(first, end - first);
      if (!has_blank || chunk.find(blank_mark) != std::string_view::npos)
        append_exactly(chunk, ids);
      else
        append(chunk, ids);
      first = end;
    }
  }

  void append_line(std::string_view line, std::vector<int32_t>& ids) const {
    size_t first = 0;
    while (!lexicon.empty() && first < line.size()) {
      Lexicon::Match match = lexicon.find(line, first);
      if (match.bytes == 0) break;
      append_pieces(line.substr(first, match.first - first), ids);
      ids.push_back(pieces + match.term);
      first = match.first + match.bytes;
    }
    append_pieces(line.substr(first), ids);
  }

  std::string piece_text(int32_t id) const {
    if (processor.IsControl(id) || processor.IsUnused(id)) return {};
    if (processor.IsUnknown(id)) return "\xEF\xBF\xBD";
    std::string text = processor.IdToPiece(id);
    for (size_t at = 0; (at = text.find(blank_mark, at)) != std::string::npos; ++at)
      text.replace(at, blank_mark.size(), " ");
    return text;
  }

  void tabulate() {
    std::fill(std::begin(byte_token), std::end(byte_token), -1);
    pieces = processor.GetPieceSize();
    for (int32_t id = 0; id < pieces; ++id) {
      if (!processor.IsByte(id)) {
        bytes.push_back(piece_text(id));
        continue;
      }
      const std::string& name = processor.IdToPiece(id);  // "<0x0A>"
      unsigned value = 256;
      if (name.size() == 6) std::from_chars(name.data() + 3, name.data() + 5, value, 16);
      if (value > 255) fail("tokenizer: the byte token {} has the name \"{}\"", id, name);
      byte_token[value] = id;
      bytes.push_back(std::string(1, static_cast<char>(value)));
    }
    lexicon = Lexicon(lexicon_terms(model));
    for (const LexiconTerm& term : lexicon.terms()) bytes.push_back(term.text);
  }

  int32_t find(std::string_view piece) const {
    int32_t id = processor.PieceToId(piece);
    return id >= 0 && id < pieces && processor.IdToPiece(id) == piece ? id : -1;
  }
};

Tokenizer::Tokenizer(std::string_view model) : state_(std::make_shared<State>()) {
  State& s = *state_;
  s.model = model;
  if (model.empty() || !s.processor.LoadFromSerializedProto(model).ok() || s.processor.GetPieceSize() == 0)
    fail("tokenizer: the {} bytes given are no SentencePiece model", model.size());
  s.tabulate();
  bool every_byte = std::all_of(std::begin(s.byte_token), std::end(s.byte_token), [](int32_t id) { return id >= 0; });
  if (every_byte) s.line_break = s.find("\n");
  s.has_blank = s.find(blank_mark) >= 0;
  std::vector<std::string> pieces;
  if (s.line_break < 0 && s.processor.Encode("a", &pieces).ok())
    s.leading_blank = !pieces.empty() && pieces[0].starts_with(blank_mark);
  if (!s.lexicon.empty() && !takes_terms())
    fail("tokenizer: its model changes a text or has no bytes to fall back on, and takes no terms of a lexicon");
}

Tokenizer Tokenizer::of_words(std::string_view list) {
  Tokenizer tokenizer;
  tokenizer.state_ = std::make_shared<State>();
  tokenizer.state_->words.emplace(list);
  return tokenizer;
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  const State& s = *state_;
  if (s.words) return s.words->encode(text);
  std::vector<int32_t> ids;
  if (s.line_break < 0) {
    s.append(text, ids);
    return ids;
  }
  for (size_t first = 0;;) {
    size_t end = text.find('\n', first);
    s.append_line(text.substr(first, end - first), ids);
    if (end == std::string_view::npos) return ids;
    ids.push_back(s.line_break);
    first = end + 1;
  }
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids) const {
  if (state_->words) return state_->words->decode(ids);
  std::string text;
  for (int32_t id : ids) text += piece_bytes(id);
  if (state_->leading_blank && text.starts_with(' ')) text.erase(0, 1);
  return text;
}

std::string Tokenizer::piece_bytes(int32_t id) const {
  if (state_->words) return state_->words->piece_bytes(id);
  if (id < 0 || id >= vocab_size()) fail("tokenizer: id {} is outside the vocabulary of {}", id, vocab_size());
  return state_->bytes[id];
}

bool Tokenizer::takes_terms() const { return !state_->words && state_->line_break >= 0; }
int64_t Tokenizer::terms() const { return state_->words ? 0 : static_cast<int64_t>(state_->lexicon.terms().size()); }
int64_t Tokenizer::vocab_size() const {
  return state_->words ? state_->words->size() : static_cast<int64_t>(state_->bytes.size());
}
int32_t Tokenizer::end_of_document() const {
  return state_->words ? state_->words->end_of_line() : state_->find("</s>");
}
int32_t Tokenizer::symbol(std::string_view name) const {
  return state_->words ? state_->words->find(name) : state_->find(name);
}
std::string_view Tokenizer::model() const {
  return state_->words ? state_->words->list() : std::string_view(state_->model);
}

}  // namespace longhand
