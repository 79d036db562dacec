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

int64_t number_of(const SafetensorsFile& file, const char* key) {
  auto entry = file.metadata().find(key);
  int64_t value = -1;
  if (entry != file.metadata().end()) std::from_chars(entry->second.data(), &*entry->second.end(), value);
  if (value < 0) fail("{}: {} is missing or no number: the session is damaged", file.path(), key);
  return value;
}

}  // namespace

Session take_session(Device& device, const Decoder& decoder, const WrittenText& text, const std::string& model) {
  Session session{text.tokens, decoder.position(text.sequence), decoder.window(), model};
  int64_t rows = std::min(session.position, session.window), first = session.position - rows;
  for (const Tensor& ring : decoder.rings(text.sequence)) {
    session.type = ring.type(), session.row = {ring.size(1), ring.size(2)};
    int64_t width = session.row.elements() * dtype_bytes(ring.type());
    std::vector<char>& bytes = session.rings.emplace_back(rows * width);
    visit_slots(first, rows, ring.size(0), [&](int64_t slot, int64_t row, int64_t count) {
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
  if (session.type != rings[0].type())
    fail("{} was made with --dtype {}, here it is {}", where, dtype_name(session.type), dtype_name(rings[0].type()));
  int64_t bytes = std::min(session.position, session.window) * session.row.elements() * dtype_bytes(session.type);
  bool fits = session.rings.size() == rings.size() && session.row == Shape{rings[0].size(1), rings[0].size(2)} &&
              session.position <= static_cast<int64_t>(session.tokens.size());
  for (const std::vector<char>& ring : session.rings) fits = fits && static_cast<int64_t>(ring.size()) == bytes;
  for (int32_t token : session.tokens) fits = fits && token >= 0 && token < decoder.config().vocab_size;
  if (!fits) fail("{} does not fit the model: it is damaged", where);
}

void resume_session(Device& device, Decoder& decoder, WrittenText& text, const Session& session,
                    const std::string& model, const std::string& where) {
  check_session(decoder, session, model, where);
  std::vector<Tensor> rings = decoder.rings(text.sequence);
  int64_t rows = std::min(session.position, session.window), first = session.position - rows;
  int64_t width = session.row.elements() * dtype_bytes(session.type);
  for (size_t i = 0; i < rings.size(); ++i)
    visit_slots(first, rows, rings[i].size(0), [&](int64_t slot, int64_t row, int64_t count) {
      device.upload(rings[i].rows(slot, count), session.rings[i].data() + row * width);
    });
  decoder.resume(text.sequence, session.position);
  text.tokens = session.tokens;
}

void write_session(const std::string& path, const Session& session) {
  int64_t rows = std::min(session.position, session.window);
  std::vector<NamedTensor> tensors = {
      {"tokens", ConstTensor(session.tokens.data(), Dtype::i32, {static_cast<int64_t>(session.tokens.size())})}};
  for (size_t i = 0; rows > 0 && i < session.rings.size(); ++i)
    tensors.push_back({fmt::format("layers.{}.{}", i / 2, i % 2 ? "values" : "keys"),
                       ConstTensor(session.rings[i].data(), session.type, {rows, session.row[0], session.row[1]})});
  write_safetensors(path, tensors,
                    {{"longhand.kind", "session"},
                     {"longhand.model", session.model},
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
  auto model = file.metadata().find("longhand.model");
  if (model != file.metadata().end()) session.model = model->second;
  for (int64_t l = 0; file.has(fmt::format("layers.{}.keys", l)); ++l)
    for (const char* which : {"keys", "values"}) {
      ConstTensor ring = file.tensor(fmt::format("layers.{}.{}", l, which));
      if (ring.rank() != 3) fail("{}: a ring of {}: the session is damaged", path, ring.shape().text());
      session.type = ring.type(), session.row = {ring.size(1), ring.size(2)};
      session.rings.emplace_back(static_cast<const char*>(ring.data()),
                                 static_cast<const char*>(ring.data()) + ring.bytes());
    }
  return session;
}

}  // namespace longhand
