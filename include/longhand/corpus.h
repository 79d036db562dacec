// Corpora: from pages and text files to documents, a vocabulary and a token file.
//
//   read (help pages | text files) -> documents a language -> split -> vocabulary -> tokens, shuffled over languages
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace longhand {

/// A text that is tokenized as a whole. `path` is relative to the corpus and the same in every language of an aligned
/// corpus; it decides the side of the split.
struct Document {
  std::string path, text;
};

struct Corpus {
  std::string language;
  std::vector<Document> documents;
  int64_t bytes() const;
};

/// A piece of a help page. (page, id) names the same content in every language.
struct Paragraph {
  std::string id, text;
};

struct Page {
  std::string path;
  std::vector<Paragraph> paragraphs;
};

/// Languages of the LibreOffice help corpus: "en", "zh", "de", ...
std::vector<std::string> help_languages();

/// What stands in a help page after id="DisplayArea": every <h1>..<h6>, <p>, <td>, <th> with an id and some text; tags
/// stripped, entities decoded, runs of blanks folded to one space.
std::vector<Paragraph> parse_help_page(std::string_view html);

/// The pages of one language under `directory` (where scripts/fetch_corpus.sh unpacked), in order of their paths.
/// Fails when there are none, and at broken UTF-8 with file and byte.
std::vector<Page> read_help_pages(const std::string& directory, const std::string& language);

/// A stretch of a paragraph that its page marks, in bytes: an element of the user interface ("UI"), a key of the
/// keyboard ("KEY"), what is to be typed ("CODE").
struct Mark {
  int64_t begin, end;
  std::string type;
};
struct MarkedParagraph {
  std::string id, text;
  std::vector<Mark> marks;
};
struct MarkedPage {
  std::string path;
  std::vector<MarkedParagraph> paragraphs;
};

/// As parse_help_page, with the marks, and without what the page hides: the wording for other systems and modules.
std::vector<MarkedParagraph> parse_marked_help_page(std::string_view html);
std::vector<MarkedPage> read_marked_help_pages(const std::string& directory, const std::string& language);

/// Documents of some languages: paragraphs equal to the English one are dropped, then repetitions within a language,
/// then empty pages; a document is a page, a paragraph a line.
std::vector<Corpus> read_help_corpora(const std::string& directory, const std::vector<std::string>& languages);

/// Text files as documents: each path is a file, or a directory whose files are all read, in order of their paths.
/// A document is a file or, with `split_lines`, a line that is not empty. Fails at broken UTF-8 with file and byte.
Corpus read_text_corpus(const std::string& language, const std::vector<std::string>& paths, bool split_lines);

struct SplitOptions {
  double validation = 0.02;     // share of the documents
  int64_t largest = 1'000'000;  // bytes of validation a language, about; lowers the share of big corpora
  double fewest_documents = 4;  // a corpus that would give fewer for validation is cut within its documents
  uint64_t seed = 0;
};

struct SplitCorpus {
  Corpus train, validation;
  int64_t documents = 0;  // before the split; one that was cut counts once
};

/// Puts every document on one side by its path, the same side in every language, so that translations and near-copies
/// do not cross. A corpus of a few documents gives the end of each instead, cut at a line break.
std::vector<SplitCorpus> split_corpora(std::vector<Corpus> corpora, const SplitOptions& options);

struct VocabularyOptions {
  int64_t size = 8192;
  int64_t sample_bytes = 12'000'000;  // of all languages together, the same from each as far as they reach
  bool split_digits = true;           // every digit is a piece of its own
  uint64_t seed = 0;
};

/// Symbols that no text is cut across: line break, tab, the marks of instructions and dialogue.
const std::vector<std::string>& vocabulary_symbols();

/// Trains a SentencePiece model on the corpora's texts and returns it serialized. Characters
/// outside the vocabulary fall back to bytes, text is not normalised. Same texts and options, same bytes. Fails in one
/// line when the text does not give so many pieces.
std::string train_vocabulary(const std::vector<const Corpus*>& corpora, const VocabularyOptions& options);

/// What `longhand prepare` was asked for.
struct PrepareOptions {
  struct Source {
    std::string language, path;
  };
  std::string help_directory;            // of the LibreOffice help corpus, or
  std::vector<std::string> languages;    // empty = all
  std::vector<Source> texts;             // text files and directories; sources of one language are joined
  std::vector<Source> validation_texts;  // joined to the validation stream of their language; not for training
  bool split_lines = false;
  VocabularyOptions vocabulary;
  std::string tokenizer;  // a SentencePiece model, weights or token file to take the vocabulary from; empty = train one
  SplitOptions split;
  std::string output;
  uint64_t seed = 0;
  int threads = 0;
};

struct PrepareReport {
  struct Row {
    std::string language;
    int64_t documents = 0, bytes = 0, tokens = 0;  // of both sides
    int64_t validation_documents = 0, validation_bytes = 0, validation_tokens = 0;
  };
  std::vector<Row> rows;
  int64_t vocab_size = 0;
  double vocabulary_seconds = 0, seconds = 0;
};

/// Reads, splits, trains or takes the vocabulary, tokenizes and writes the token file (longhand/data.h). In
/// train.tokens the documents of all languages are shuffled, each followed by </s>.
PrepareReport prepare(const PrepareOptions& options);

}  // namespace longhand
