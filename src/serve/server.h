// The server: routes of OpenAI's API over the batch engine, one engine a model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <thread>
#include <vector>

#include "longhand/generate.h"
#include "longhand/text.h"
#include "src/serve/connection.h"
#include "src/serve/engine.h"
#include "src/serve/experiment.h"
#include "src/serve/metrics.h"
#include "src/serve/refusal.h"
#include "src/serve/request.h"
#include "src/serve/session_folder.h"
#include "src/text/chat_form.h"

namespace longhand::serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0 = any free one
  ConnectionLimits connections;
  EngineLimits engine;
  RequestLimits request;
  int64_t context = 32768;                // tokens of a prompt at most
  std::chrono::seconds timeout{300};      // for an answer, waiting included
  std::vector<std::string> keys;          // empty = no key is asked for
  std::vector<std::string> cors_origins;  // pages that may call; empty = none, "*" = all
  std::string experiment = "ab";          // the name that requests give to take part
  std::string sessions;                   // folder that sessions are kept in; empty = none are
  std::vector<Variant> variants;          // empty = no experiment
};

struct ServedAdapter {
  std::string name;
  Adapter adapter;
};

/// A model ready to write, under the name that requests give, and adapters beside its weights under theirs.
struct ServedModel {
  ServedModel(std::string name, std::unique_ptr<Device> device, LoadedModel model, Tokenizer tokenizer,
              std::vector<ServedAdapter> adapters, const EngineLimits& limits);

  std::string name;
  std::unique_ptr<Device> device;
  LoadedModel model;
  Tokenizer tokenizer;
  std::vector<ServedAdapter> adapters;
  ChatForm form;
  Engine engine;

  std::vector<std::string> names() const;  // the model's, then its adapters'
};

/// What a request's "model" names.
struct Target {
  ServedModel& model;
  int32_t adapters = Decoder::no_adapters;  // stack of the engine

  const std::string& name() const;
  std::string checksum() const;  // of what writes: a session's
};

class Server {
 public:
  Server(const ServerOptions& options, std::vector<std::unique_ptr<ServedModel>> models);
  ~Server();

  /// Listens and serves on threads of its own; fails when the address is taken. Returns the port.
  int start();
  /// No new requests; those there are finished.
  void drain();
  bool finished() const;  // after drain(): nothing is being served any more
  void cancel_all();      // what is still being written ends now

 private:
  struct Writing;
  using Reply = httplib::Response;
  using Query = httplib::Request;

  void set_up();
  void set_up_experiment();
  bool before(const Query& query, Reply& reply);  // true: answered
  void route(const std::string& path, std::function<void(const Query&, Reply&)> handle, bool post);
  void write_text(const Query& query, Reply& reply, bool chat);
  std::shared_ptr<Writing> begin_writing(const Query& query, bool chat);
  void finish(Writing& writing);
  void write_whole(Writing& writing, Reply& reply);
  void stream(const std::shared_ptr<Writing>& writing, Reply& reply);
  void embed(const Query& query, Reply& reply);
  void tokenize(const Query& query, Reply& reply);
  void rate(const Query& query, Reply& reply);
  void show_experiment(Reply& reply) const;
  nlohmann::ordered_json models() const;
  void list_models(Reply& reply) const;
  void show_model(const std::string& name, Reply& reply) const;
  bool known(const std::string& path) const;
  void health(Reply& reply) const;
  void show_metrics(Reply& reply) const;
  Target find(const std::string& name) const;
  std::vector<std::string> names() const;  // of every model and adapter
  std::vector<int32_t> tokens_of(const Prompt& prompt, const ServedModel& model, const char* param,
                                 bool resumed = false) const;
  std::vector<int32_t> chat_tokens(const TextRequest& request, const ServedModel& model, bool resumed) const;
  std::shared_ptr<const ChoiceTree> guide_of(const TextRequest& request, const ServedModel& model) const;
  std::vector<int32_t> within_context(std::vector<int32_t> tokens, const char* param) const;
  std::string key_of(const Query& query) const;     // empty where none is asked for
  std::string client_of(const Query& query) const;  // whose turns these are

  ServerOptions options_;
  std::vector<std::unique_ptr<ServedModel>> models_;
  std::unique_ptr<Experiment> experiment_;  // null = none
  SessionFolder sessions_;
  Metrics metrics_;
  std::vector<std::string> paths_;
  std::atomic<bool> draining_{false}, finished_{false};
  int64_t created_;
  GuardedServer http_;
  std::thread listener_;
};

}  // namespace longhand::serve
