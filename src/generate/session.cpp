#include "longhand/session.h"

#include <charconv>

namespace longhand {
namespace {

/// The slots of positions [first, first + count) are one or two stretches of the ring: calls on(slot, row, rows).
template <class Visitor>
void visit_slots(int64_t first, int64_t count, int64_t slots, Visitor&& on) {
  for (int64_t done = 0; done < count;) {
    int64_t slot = (first + done) % slots, rows = std::min(count - done, slots - slot);
    on(slot, done, rows);
    done += rows;
  }
}

/// Bytes of one position in a ring.
int64_t row_bytes(const Tensor& ring) { return ring.elements() / ring.size(0) * dtype_bytes(ring.type()); }

/// A layer's rings by the names that they have in a file.
std::vector<std::string> ring_names(Dtype type) {
  if (type == Dtype::i8) return {"keys", "values", "key_scales", "value_scales"};
  return {"keys", "values"};
}

int64_t number_of(const SafetensorsFile& file, const char* key) {
  auto entry = file.metadata().find(key);
  int64_t value = -1;
  if (entry != file.metadata().end()) std::from_chars(entry->second.data(), &*entry->second.end(), value);
  if (value < 0) fail("{}: {} is missing or no number: the session is damaged", file.path(), key);
  return value;
}

}  // namespace

Session take_session(Device& device, const Decoder& decoder, const WrittenText& text, const std::string& model) {
  Session session{text.tokens, decoder.position(text.sequence), decoder.window(), model, decoder.attention()};
  session.rows = decoder.rows_needed(session.position), session.type = decoder.ring();
  session.row = {decoder.config().n_head, decoder.config().d_head};
  for (const Tensor& ring : decoder.rings(text.sequence)) {
    int64_t width = row_bytes(ring);
    std::vector<char>& bytes = session.rings.emplace_back(session.rows * width);
    visit_slots(session.position - session.rows, session.rows, ring.size(0),
                [&](int64_t slot, int64_t row, int64_t count) {
                  device.download(bytes.data() + row * width, ring.rows(slot, count));
                });
  }
  return session;
}

void check_session(const Decoder& decoder, const Session& session, const std::string& model, const std::string& where) {
  std::vector<Tensor> rings = decoder.rings(0);
  if (session.model != model) fail("{} was made with other weights", where);
  if (session.window != decoder.window())
    fail("{} was made with --window {}, here it is {}", where, session.window, decoder.window());
  if (session.type != decoder.ring())
    fail("{} was made with a ring of {}, here it is of {} (--dtype, --ring)", where, dtype_name(session.type),
         dtype_name(decoder.ring()));
  if (session.attention != decoder.attention())
    fail("{} was made with --attention {}, here it is {}", where, session.attention, decoder.attention());
  bool fits = session.rings.size() == rings.size() && session.row == Shape{rings[0].size(1), rings[0].size(2)} &&
              session.position <= static_cast<int64_t>(session.tokens.size()) &&
              session.rows == decoder.rows_needed(session.position);
  for (size_t i = 0; fits && i < rings.size(); ++i)
    fits = static_cast<int64_t>(session.rings[i].size()) == session.rows * row_bytes(rings[i]);
  for (int32_t token : session.tokens) fits = fits && token >= 0 && token < decoder.config().vocab_size;
  if (!fits) fail("{} does not fit the model: it is damaged", where);
}

void resume_session(Device& device, Decoder& decoder, WrittenText& text, const Session& session,
                    const std::string& model, const std::string& where) {
  check_session(decoder, session, model, where);
  std::vector<Tensor> rings = decoder.rings(text.sequence);
  for (size_t i = 0; i < rings.size(); ++i) {
    int64_t width = row_bytes(rings[i]);
    visit_slots(session.position - session.rows, session.rows, rings[i].size(0),
                [&](int64_t slot, int64_t row, int64_t count) {
                  device.upload(rings[i].rows(slot, count), session.rings[i].data() + row * width);
                });
  }
  decoder.resume(text.sequence, session.position);
  text.tokens = session.tokens;
}

void write_session(const std::string& path, const Session& session) {
  std::vector<std::string> names = ring_names(session.type);
  std::vector<NamedTensor> tensors = {
      {"tokens", ConstTensor(session.tokens.data(), Dtype::i32, {static_cast<int64_t>(session.tokens.size())})}};
  for (size_t i = 0; session.rows > 0 && i < session.rings.size(); ++i) {
    const char* data = session.rings[i].data();
    bool scales = i % names.size() > 1;
    tensors.push_back({fmt::format("layers.{}.{}", i / names.size(), names[i % names.size()]),
                       scales ? ConstTensor(data, Dtype::fp32, {session.rows, session.row[0]})
                              : ConstTensor(data, session.type, {session.rows, session.row[0], session.row[1]})});
  }
  write_safetensors(path, tensors,
                    {{"longhand.kind", "session"},
                     {"longhand.model", session.model},
                     {"longhand.attention", session.attention},
                     {"longhand.position", std::to_string(session.position)},
                     {"longhand.window", std::to_string(session.window)}});
}

Session read_session(const std::string& path) {
  SafetensorsFile file(path);
  auto kind = file.metadata().find("longhand.kind");
  if (kind == file.metadata().end() || kind->second != "session") fail("{} is no session", path);
  file.verify();
  Session session;
  ConstTensor tokens = file.tensor("tokens");
  if (tokens.type() != Dtype::i32)
    fail("{}: its tokens are {}: the session is damaged", path, dtype_name(tokens.type()));
  session.tokens.assign(tokens.as<int32_t>(), tokens.as<int32_t>() + tokens.elements());
  session.position = number_of(file, "longhand.position"), session.window = number_of(file, "longhand.window");
  auto text_of = [&](const char* key) {
    auto entry = file.metadata().find(key);
    return entry == file.metadata().end() ? std::string() : entry->second;
  };
  session.model = text_of("longhand.model"), session.attention = text_of("longhand.attention");
  if (file.has("layers.0.keys")) {
    ConstTensor keys = file.tensor("layers.0.keys");
    if (keys.rank() != 3) fail("{}: a ring of {}: the session is damaged", path, keys.shape().text());
    session.type = keys.type(), session.rows = keys.size(0), session.row = {keys.size(1), keys.size(2)};
  }
  for (int64_t l = 0; file.has(fmt::format("layers.{}.keys", l)); ++l)
    for (const std::string& which : ring_names(session.type)) {
      ConstTensor ring = file.tensor(fmt::format("layers.{}.{}", l, which));
      session.rings.emplace_back(static_cast<const char*>(ring.data()),
                                 static_cast<const char*>(ring.data()) + ring.bytes());
    }
  return session;
}

}  // namespace longhand
