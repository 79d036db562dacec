// Sessions: a text and what the decoder remembers of it, taken out of a decoder and put back into one, there and then
// or through a file. A text that is gone on with costs nothing for what came before; what is kept does not grow with it
// but for four bytes a token.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "longhand/generate.h"

namespace longhand {

struct Session {
  std::vector<int32_t> tokens;  // of the whole text
  int64_t position = 0;         // how many of them the decoder has taken
  int64_t window = 0;           // of the decoder
  std::string model;            // LoadedModel::checksum
  std::string attention;        // of the decoder
  // The rings' last rows, oldest first, as many as it takes to go on, in the order of Decoder::rings().
  int64_t rows = 0;
  Dtype type = Dtype::fp32;
  Shape row;  // [H, dh]
  std::vector<std::vector<char>> rings;
};

Session take_session(Device& device, const Decoder& decoder, const WrittenText& text, const std::string& model);

/// Fails when the session is that of another model, window, choice of keys or type of ring; `where` names it in
/// messages. Reads only what is fixed in a decoder, so another thread may be using it.
void check_session(const Decoder& decoder, const Session& session, const std::string& model, const std::string& where);

/// Checks, then puts the session into the text's sequence.
void resume_session(Device& device, Decoder& decoder, WrittenText& text, const Session& session,
                    const std::string& model, const std::string& where);

void write_session(const std::string& path, const Session& session);  // the old file or the new one, never half
/// Fails on what is no session, and on a damaged one.
Session read_session(const std::string& path);

}  // namespace longhand
