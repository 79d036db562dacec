#include "src/serve/server.h"

#include <algorithm>
#include <ctime>
#include <nlohmann/json.hpp>

#include "longhand/error.h"
#include "longhand/nearest.h"
#include "src/serve/page.h"

namespace longhand::serve {
namespace {

constexpr const char* json_type = "application/json";
const std::string model_path = "/v1/models/";

// In a time that does not tell how much of a key was right.
bool same_key(std::string_view a, std::string_view b) {
  unsigned char difference = a.size() != b.size();
  for (size_t i = 0; i < a.size(); ++i) difference |= a[i] ^ (b.empty() ? 1 : b[i % b.size()]);
  return difference == 0;
}

std::string_view bearer(const httplib::Request& query, std::string& header) {
  header = query.get_header_value("Authorization");
  constexpr std::string_view scheme = "Bearer ";
  return header.starts_with(scheme) ? std::string_view(header).substr(scheme.size()) : std::string_view();
}

void refuse_with(httplib::Response& reply, const Refusal& refusal) {
  reply.status = refusal.status;
  if (refusal.status == 429 || refusal.status == 503) reply.set_header("Retry-After", "1");
  if (refusal.status == 401) reply.set_header("WWW-Authenticate", "Bearer");
  reply.set_content(error_body(refusal), json_type);
}

// Each adapter is a stack of its own.
std::vector<AdapterStack> stacks_of(const std::vector<ServedAdapter>& adapters) {
  std::vector<AdapterStack> stacks;
  for (const ServedAdapter& one : adapters) stacks.push_back({&one.adapter});
  return stacks;
}

}  // namespace

ServedModel::ServedModel(std::string name, std::unique_ptr<Device> own_device, LoadedModel loaded,
                         Tokenizer own_tokenizer, std::vector<ServedAdapter> own_adapters, const EngineLimits& limits)
    : name(std::move(name)),
      device(std::move(own_device)),
      model(std::move(loaded)),
      tokenizer(std::move(own_tokenizer)),
      adapters(std::move(own_adapters)),
      form(tokenizer),
      engine(*device, model.config, model.weights, tokenizer, limits, stacks_of(adapters)) {}

std::vector<std::string> ServedModel::names() const {
  std::vector<std::string> names = {name};
  for (const ServedAdapter& one : adapters) names.push_back(one.name);
  return names;
}

const std::string& Target::name() const {
  return adapters == Decoder::no_adapters ? model.name : model.adapters[adapters].name;
}

std::string Target::checksum() const {
  if (adapters == Decoder::no_adapters) return model.model.checksum;
  return model.model.checksum + "+" + model.adapters[adapters].adapter.checksum;
}

Server::Server(const ServerOptions& options, std::vector<std::unique_ptr<ServedModel>> models)
    : options_(options),
      models_(std::move(models)),
      sessions_(options.sessions),
      created_(std::time(nullptr)),
      http_(options.connections) {
  if (models_.empty()) fail("there is no model to serve");
  std::vector<std::string> names = this->names();
  std::sort(names.begin(), names.end());
  if (auto twice = std::adjacent_find(names.begin(), names.end()); twice != names.end())
    fail("two models or adapters are named {}", *twice);
  if (!options.variants.empty()) set_up_experiment();
  set_up();
}

void Server::set_up_experiment() {
  experiment_ = std::make_unique<Experiment>(options_.experiment, options_.variants);
  std::vector<std::string> names = this->names();
  auto served = [&](const std::string& name) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (served(options_.experiment)) fail("experiment {}: a model has that name (--experiment)", options_.experiment);
  for (const Variant& variant : options_.variants)
    if (!served(variant.model))
      fail("variant {}: there is no model \"{}\"{}", variant.name, variant.model, did_you_mean(variant.model, names));
}

Server::~Server() {
  drain();
  cancel_all();
  if (listener_.joinable()) listener_.join();
}

int Server::start() {
  int port = options_.port;
  bool bound = port == 0 ? (port = http_.bind_to_any_port(options_.host)) > 0 : http_.bind_to_port(options_.host, port);
  if (!bound)
    fail("cannot listen on {} port {}: the port is taken, or the address is not this machine's (--port, --host)",
         options_.host, options_.port);
  listener_ = std::thread([this] {
    http_.listen_after_bind();
    finished_ = true;
  });
  while (!http_.is_running() && !finished_) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return port;
}

void Server::drain() {
  if (draining_.exchange(true)) return;
  for (auto& model : models_) model->engine.drain();
  http_.close_idle();
  http_.stop();
}

bool Server::finished() const { return finished_; }

void Server::cancel_all() {
  for (auto& model : models_) model->engine.cancel_all();
}

void Server::route(const std::string& path, std::function<void(const Query&, Reply&)> handle, bool post) {
  if (path.find('(') == path.npos) paths_.push_back(path);
  auto guarded = [handle = std::move(handle)](const Query& query, Reply& reply) {
    if (Connection::current()) Connection::current()->request_arrived();
    try {
      handle(query, reply);
    } catch (const Refusal& refusal) {
      refuse_with(reply, refusal);
    } catch (const std::exception& error) {
      refuse_with(reply, {500, error.what()});
    }
  };
  if (post)
    http_.Post(path, guarded);
  else
    http_.Get(path, guarded);
}

void Server::set_up() {
  route(
      "/",
      [](const Query&, Reply& reply) {
        std::string_view page = chat_page();
        reply.set_content(page.data(), page.size(), "text/html; charset=utf-8");
        reply.set_header(
            "Content-Security-Policy",
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
      },
      false);
  route(
      "/health", [this](const Query&, Reply& reply) { health(reply); }, false);
  route(
      "/metrics", [this](const Query&, Reply& reply) { show_metrics(reply); }, false);
  route(
      "/v1/models", [this](const Query&, Reply& reply) { list_models(reply); }, false);
  route(
      model_path + "(.+)", [this](const Query& query, Reply& reply) { show_model(query.matches[1], reply); }, false);
  route(
      "/v1/completions", [this](const Query& query, Reply& reply) { write_text(query, reply, false); }, true);
  route(
      "/v1/chat/completions", [this](const Query& query, Reply& reply) { write_text(query, reply, true); }, true);
  route(
      "/v1/embeddings", [this](const Query& query, Reply& reply) { embed(query, reply); }, true);
  route(
      "/tokenize", [this](const Query& query, Reply& reply) { tokenize(query, reply); }, true);

  if (experiment_) {
    route(
        "/ab", [this](const Query&, Reply& reply) { show_experiment(reply); }, false);
    route(
        "/ab/feedback", [this](const Query& query, Reply& reply) { rate(query, reply); }, true);
  }

  http_.set_pre_routing_handler([this](const Query& query, Reply& reply) {
    using Outcome = httplib::Server::HandlerResponse;
    return before(query, reply) ? Outcome::Handled : Outcome::Unhandled;
  });
  // What the parser refuses by itself: an unknown path, a body that is too long, a broken request.
  http_.set_error_handler([this](const Query& query, Reply& reply) {
    if (!reply.body.empty()) return;
    if (reply.status == 404 && known(query.path)) reply.status = 405;
    if (Connection::current()) Connection::current()->close_afterwards();
    std::string what = reply.status == 404
                           ? fmt::format("there is no {}{}", query.path, did_you_mean(query.path, paths_))
                       : reply.status == 405 ? fmt::format("{} does not take {}", query.path, query.method)
                       : reply.status == 413 ? fmt::format("a body of more than {} bytes", options_.connections.body)
                                             : std::string(status_name(reply.status));
    refuse_with(reply, {reply.status, what});
  });
  http_.set_logger([this](const Query& query, const Reply& reply) {
    double seconds = Connection::current() ? Connection::current()->seconds() : 0;
    std::string path = !known(query.path) ? "other" : query.path.starts_with(model_path) ? model_path : query.path;
    metrics_.answered(path, reply.status, seconds);
  });
}

// What is decided before a body is read. An answer from here leaves the body unread, so the connection ends with it.
bool Server::before(const Query& query, Reply& reply) {
  std::string origin = query.get_header_value("Origin");
  const auto& allowed = options_.cors_origins;
  if (!origin.empty() && std::any_of(allowed.begin(), allowed.end(),
                                     [&](const std::string& one) { return one == "*" || one == origin; })) {
    reply.set_header("Access-Control-Allow-Origin", origin);
    reply.set_header("Vary", "Origin");
    if (query.method == "OPTIONS") {
      reply.set_header("Access-Control-Allow-Methods", "GET, POST");
      reply.set_header("Access-Control-Allow-Headers", "Authorization, Content-Type");
      reply.status = 204;
      return true;
    }
  }
  try {
    bool open = query.path == "/" || query.path == "/health";
    std::string header;
    std::string_view key = bearer(query, header);
    const auto& keys = options_.keys;
    if (!open && !keys.empty() &&
        !std::any_of(keys.begin(), keys.end(), [&](const std::string& one) { return same_key(key, one); }))
      throw Refusal(401, "this server asks for a key: Authorization: Bearer KEY");
    if (query.method != "POST") return false;
    if (draining_) throw Refusal(503, "the server is shutting down");
    if (!query.get_header_value("Content-Encoding").empty()) throw Refusal(415, "a compressed body is not accepted");
    // A page of another origin can send any other type without asking first (CORS), and so use a server that it cannot
    // read.
    if (!query.get_header_value("Content-Type").starts_with(json_type))
      throw Refusal(415, "the body's type is not stated to be JSON: Content-Type: application/json");
  } catch (const Refusal& refusal) {
    refuse_with(reply, refusal);
    if (Connection::current()) Connection::current()->close_afterwards();
    return true;
  }
  return false;
}

std::vector<std::string> Server::names() const {
  std::vector<std::string> names;
  for (auto& model : models_)
    for (std::string& name : model->names()) names.push_back(std::move(name));
  return names;
}

Target Server::find(const std::string& name) const {
  if (name.empty()) return {*models_.front()};
  for (auto& model : models_) {
    if (model->name == name) return {*model};
    for (size_t i = 0; i < model->adapters.size(); ++i)
      if (model->adapters[i].name == name) return {*model, static_cast<int32_t>(i)};
  }
  throw Refusal(404,
                fmt::format("there is no model \"{}\"{}; GET /v1/models lists them", name, did_you_mean(name, names())),
                "model");
}

std::string Server::key_of(const Query& query) const {
  std::string header;
  return options_.keys.empty() ? std::string() : std::string(bearer(query, header));
}

std::string Server::client_of(const Query& query) const {
  return options_.keys.empty() ? query.remote_addr : key_of(query);
}

// The models in OpenAI's form: weights, adapters behind theirs, the experiment.
nlohmann::ordered_json Server::models() const {
  using Object = nlohmann::ordered_json;
  auto entry = [&](const std::string& name) {
    return Object{{"id", name}, {"object", "model"}, {"created", created_}, {"owned_by", "longhand"}};
  };
  Object list = Object::array();
  for (auto& model : models_) {
    Object one = entry(model->name);
    one["parameters"] = model->model.config.parameters(), one["vocab_size"] = model->model.config.vocab_size;
    list.push_back(one);
    for (const ServedAdapter& adapter : model->adapters) {
      Object beside = entry(adapter.name);
      beside["parent"] = model->name;
      list.push_back(beside);
    }
  }
  if (experiment_) list.push_back(entry(experiment_->name()));
  return list;
}

void Server::list_models(Reply& reply) const {
  nlohmann::ordered_json answer = {{"object", "list"}, {"data", models()}};
  reply.set_content(answer.dump() + "\n", json_type);
}

void Server::show_model(const std::string& name, Reply& reply) const {
  for (const nlohmann::ordered_json& model : models())
    if (model["id"] == name) return reply.set_content(model.dump() + "\n", json_type);
  find(name);  // refuses
}

// Everything under /v1/models/ is one path: names are the client's to choose.
bool Server::known(const std::string& path) const {
  if (path.starts_with(model_path)) return path.size() > model_path.size();
  return std::find(paths_.begin(), paths_.end(), path) != paths_.end();
}

void Server::health(Reply& reply) const {
  if (draining_) throw Refusal(503, "the server is shutting down");
  reply.set_content("{\"status\":\"ok\"}\n", json_type);
}

void Server::show_metrics(Reply& reply) const {
  std::vector<EngineView> engines;
  for (auto& model : models_) engines.push_back({model->names(), model->engine.numbers()});
  std::string text = metrics_.text(engines, http_.connections());
  if (experiment_) text += experiment_metrics(*experiment_);
  reply.set_content(text, "text/plain; version=0.0.4; charset=utf-8");
}

}  // namespace longhand::serve
