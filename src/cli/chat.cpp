// longhand chat: a conversation whose memory is the ring; it lasts until /exit or the end of the input.
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "longhand/files.h"
#include "longhand/session.h"
#include "src/cli/options.h"
#include "src/generate/piece_stream.h"
#include "src/text/chat_form.h"

namespace longhand::cli {
namespace {

struct ChatFlags {
  ModelFlags model;
  SamplingFlags sampling;
  DecoderFlags decoder;
  std::string system, session;
};

void show(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

// Writes the answer to the last turn, as it goes unless `live` is false, and returns it.
std::string answer(Writer& writer, WrittenText& text, const ChatForm& form, const Tokenizer& tokenizer,
                   const SamplingFlags& flags, bool live) {
  std::vector<std::string> stops = flags.stop;
  for (const std::string& stop : form.stops()) stops.push_back(stop);
  PieceStream stream(tokenizer, stops);
  std::string all;
  auto take = [&](std::string piece) {
    if (all.empty()) piece.erase(0, piece.find_first_not_of(' '));
    all += piece;
    if (live) show(piece);
  };
  WrittenText* one = &text;
  bool ended = flags.tokens == 0;
  for (int64_t written = 0; !ended;) {
    std::vector<Writer::Drawn> drawn = writer.next({&one, 1})[0];
    size_t taken = 0;
    while (taken < drawn.size() && !ended) {
      int32_t token = drawn[taken++].token;
      bool end = form.ends(token);
      if (!end) take(stream.push(token));
      ended = end || stream.stopped() || ++written == flags.tokens;
    }
    writer.take_back(text, static_cast<int64_t>(drawn.size() - taken));
  }
  take(stream.finish());
  if (form.end() >= 0 && text.tokens.back() != form.end()) text.tokens.push_back(form.end());
  return all;
}

void run_chat(const ChatFlags& flags, const Common& common) {
  auto device = common.make();
  WrittenText text;
  text.rules = flags.sampling.rules(common.seed, 0);
  text.speculation = speculation(flags.sampling.speculate);
  DecoderShape shape{.window = flags.sampling.window, .chunk = 128};
  flags.decoder.apply(shape);
  OpenModel open = open_model(*device, flags.model, AdapterUse::beside);
  if (!open.tokenizer) fail_usage("{} has no tokenizer, and a conversation needs one", open.path);
  Decoder decoder(*device, open.model, shape);
  Writer writer(*device, decoder);
  ChatForm form(*open.tokenizer);
  check_utf8(flags.system, "--system");
  text.tokens = form.start(flags.system);
  if (!flags.session.empty() && std::filesystem::exists(flags.session))
    resume_session(*device, decoder, text, read_session(flags.session), open.model.checksum, flags.session);

  bool terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
  if (terminal) show("/reset forgets the conversation, /exit leaves\n");
  for (std::string line; show(terminal ? "> " : ""), std::getline(std::cin, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line == "/exit") return;
    if (line == "/reset") {
      decoder.reset(0);
      text.tokens = form.start(flags.system);
      continue;
    }
    if (line.empty()) continue;
    check_utf8(line, "the line read");
    std::vector<int32_t> turn = form.turn(line);
    text.tokens.insert(text.tokens.end(), turn.begin(), turn.end());
    std::string reply = answer(writer, text, form, *open.tokenizer, flags.sampling, !common.json);
    if (!flags.session.empty()) write_session(flags.session, take_session(*device, decoder, text, open.model.checksum));
    nlohmann::ordered_json object = {{"text", reply}};
    show(common.json ? object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n" : "\n");
  }
}

}  // namespace

void add_chat(CLI::App& app, Common& common) {
  CLI::App* command = add_command(app, common, "chat", "talk with a model, a line a turn; works in a pipe too");
  auto flags = std::make_shared<ChatFlags>();
  command->add_option("--system", flags->system, "what the conversation begins with")
      ->type_name("TEXT")
      ->group("Prompt");
  command
      ->add_option("--session", flags->session,
                   "file that the conversation is kept in, and gone on from where it is there already")
      ->type_name("FILE")
      ->group("Prompt");
  add_sampling_flags(*command, flags->sampling);
  add_decoder_flags(*command, flags->decoder, "Memory");
  add_model_flags(*command, flags->model);
  command->callback([flags, &common] { common.run = [flags, &common] { run_chat(*flags, common); }; });
}

}  // namespace longhand::cli
