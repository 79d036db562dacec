// The routes that read a body: completions, chats, embeddings, tokens.
#include <ctime>
#include <nlohmann/json.hpp>
#include <random>

#include "src/serve/answer.h"
#include "src/serve/server.h"

namespace longhand::serve {
namespace {

constexpr const char* json_type = "application/json";
constexpr auto patience = std::chrono::milliseconds(100);  // between two looks whether the client is still there

uint64_t random_bits(int count) {
  static thread_local std::random_device source;
  uint64_t bits = static_cast<uint64_t>(source()) << 32 | source();
  return bits >> (64 - count);
}

// Thrown inside a handler whose client has hung up: nobody will read the answer.
struct HungUp {};

bool hung_up() { return Connection::current() && Connection::current()->gone(); }

[[noreturn]] void refuse_finish(Finish finish) {
  if (finish == Finish::timeout) throw Refusal(408, "the answer took longer than this server allows");
  if (finish == Finish::cancelled) throw Refusal(503, "the server is shutting down");
  throw Refusal(500, "writing failed on the server");
}

bool ended_badly(Finish finish) {
  return finish == Finish::cancelled || finish == Finish::timeout || finish == Finish::failed;
}

}  // namespace

// A text request under way: its jobs, one a prompt, and what has come of them. Whatever way it ends, its jobs end too.
struct Server::Writing {
  Writing(TextRequest parsed, Target target, std::optional<size_t> variant)
      : request(std::move(parsed)), target(target), variant(variant) {}
  ~Writing() {
    for (auto& ticket : tickets) ticket->cancel();
  }

  /// Every step of every prompt in order, as a server-sent event where it shows one.
  void follow(const std::function<void(const std::string&)>& show, Metrics& metrics) {
    bool first = true;
    for (size_t t = 0; t < tickets.size(); ++t)
      for (int32_t open = request.choices; open > 0;) {
        std::optional<Event> event = tickets[t]->wait(patience);
        if (hung_up()) throw HungUp();
        if (!event) continue;
        if (ended_badly(event->finish)) refuse_finish(event->finish);
        if (event->session) session = event->session;
        if (first) metrics.first_token(std::chrono::duration<double>(Clock::now() - submitted).count());
        first = false;
        open -= event->finish != Finish::none;
        std::string piece = answer->take(static_cast<int32_t>(t) * request.choices + event->choice, *event);
        if (!piece.empty()) show(piece);
      }
  }

  TextRequest request;
  Target target;
  std::optional<size_t> variant;     // of the experiment
  SessionFolder::Lease lease;        // of the request's session
  std::shared_ptr<Session> session;  // as it stands after the answer
  std::vector<std::unique_ptr<Ticket>> tickets;
  std::unique_ptr<TextAnswer> answer;
  Clock::time_point submitted = Clock::now();
};

std::vector<int32_t> Server::within_context(std::vector<int32_t> tokens, const char* param) const {
  if (static_cast<int64_t>(tokens.size()) > options_.context)
    throw Refusal(413, fmt::format("a prompt of {} tokens: {} at most", tokens.size(), options_.context), param);
  return tokens;
}

// As longhand generate has it: a text follows the end of a document (or what it goes on with), ids stand for
// themselves.
std::vector<int32_t> Server::tokens_of(const Prompt& prompt, const ServedModel& model, const char* param,
                                       bool resumed) const {
  if (!prompt.by_ids) {
    std::vector<int32_t> tokens;
    if (!resumed) tokens.push_back(model.tokenizer.end_of_document());
    std::vector<int32_t> body = model.tokenizer.encode(prompt.text);
    tokens.insert(tokens.end(), body.begin(), body.end());
    return within_context(std::move(tokens), param);
  }
  for (int32_t id : prompt.ids)
    if (id >= model.model.config.vocab_size)
      throw Refusal(400,
                    fmt::format("token {} is outside the model's vocabulary of {}", id, model.model.config.vocab_size),
                    param);
  return within_context(prompt.ids, param);
}

// Of a conversation that is gone on with, only what is new: the last message.
std::vector<int32_t> Server::chat_tokens(const TextRequest& request, const ServedModel& model, bool resumed) const {
  if (resumed) return within_context(model.form.turn(request.messages.back().text), "messages");
  bool system = request.messages.front().role == "system";
  std::vector<int32_t> tokens = model.form.start(system ? request.messages.front().text : "");
  for (const Message& message : request.messages) {
    if (message.role == "system") continue;
    std::vector<int32_t> part = message.role == "user" ? model.form.turn(message.text) : model.form.reply(message.text);
    tokens.insert(tokens.end(), part.begin(), part.end());
  }
  return within_context(std::move(tokens), "messages");
}

std::shared_ptr<const ChoiceTree> Server::guide_of(const TextRequest& request, const ServedModel& model) const {
  if (request.guided.empty()) return nullptr;
  std::vector<std::vector<int32_t>> choices;
  for (const std::string& text : request.guided) {
    if (model.tokenizer.decode(model.tokenizer.encode(text)) != text)
      throw Refusal(400, fmt::format("\"{}\" cannot be written in the model's tokens", text), "guided_choice");
    choices.push_back(request.chat ? model.form.answer(text) : model.tokenizer.encode(text));
  }
  return std::make_shared<ChoiceTree>(
      choices, request.chat ? model.form.ends() : std::vector<int32_t>{model.tokenizer.end_of_document()});
}

std::shared_ptr<Server::Writing> Server::begin_writing(const Query& query, bool chat) {
  TextRequest parsed = parse_text_request(query.body, chat, options_.request);
  std::string name = parsed.model, variant_name;
  std::optional<size_t> variant;
  if (experiment_ && name == experiment_->name()) {
    variant = experiment_->choose(parsed.user, static_cast<double>(random_bits(53)) * 0x1p-53);
    const Variant& chosen = experiment_->variants()[*variant];
    chosen.apply(parsed.rules);
    name = chosen.model, variant_name = chosen.name;
  }
  Target target = find(name);
  ServedModel& model = target.model;
  auto writing = std::make_shared<Writing>(std::move(parsed), target, variant);
  const TextRequest& request = writing->request;
  if (request.echo && request.logprobs >= 0)
    throw Refusal(400, "echo with logprobs is not supported: longhand score gives a text's log-probabilities", "echo");
  if (request.logprobs > 0 && request.logprobs > model.model.config.vocab_size)
    throw Refusal(400, "more likely tokens than the vocabulary has", "logprobs");

  std::shared_ptr<const Session> session;
  if (!request.session.empty()) {
    writing->lease = sessions_.take(request.session, key_of(query));
    session = writing->lease.read(target.checksum());
  }
  std::vector<std::vector<int32_t>> prompts;
  std::vector<std::string> echoed;
  if (chat) prompts.push_back(chat_tokens(request, model, session != nullptr));
  for (const Prompt& prompt : request.prompts) {
    prompts.push_back(tokens_of(prompt, model, "prompt", session != nullptr));
    if (request.echo) echoed.push_back(prompt.by_ids ? model.tokenizer.decode(prompt.ids) : prompt.text);
  }
  std::shared_ptr<const ChoiceTree> guide = guide_of(request, model);
  uint64_t seed = request.seed.value_or(random_bits(32));
  int64_t prompt_tokens = 0;
  for (auto& tokens : prompts) {
    prompt_tokens += static_cast<int64_t>(tokens.size());
    Job job{.prompt = tokens, .rules = request.rules, .choices = request.choices, .tokens = request.tokens};
    job.rules.stream = {seed, 0, RandomUse::sampling, 0};
    job.adapters = target.adapters;
    job.stops = request.stops, job.guide = guide;
    if (chat)
      for (const std::string& stop : model.form.stops()) job.stops.push_back(stop);
    if (!request.ignore_end)
      job.ends = chat ? model.form.ends() : std::vector<int32_t>{model.tokenizer.end_of_document()};
    job.top = std::max(request.logprobs, 0);
    job.session = session, job.keep = !request.session.empty();
    job.client = client_of(query);
    job.deadline = Clock::now() + options_.timeout;
    writing->tickets.push_back(model.engine.submit(std::move(job)));
  }
  TextAnswer::Head head{fmt::format("{}-{:016x}", chat ? "chatcmpl" : "cmpl", random_bits(64)),
                        variant ? experiment_->name() : target.name(), variant_name,
                        static_cast<int64_t>(std::time(nullptr)), seed};
  writing->answer = std::make_unique<TextAnswer>(request, head, model.tokenizer, prompt_tokens, std::move(echoed));
  return writing;
}

void Server::write_text(const Query& query, Reply& reply, bool chat) {
  std::shared_ptr<Writing> writing = begin_writing(query, chat);
  if (writing->request.stream)
    stream(writing, reply);
  else
    write_whole(*writing, reply);
}

// What is left when an answer has come to its end: its session, and its place in the experiment.
void Server::finish(Writing& writing) {
  if (writing.session) {
    Session& session = *writing.session;
    session.model = writing.target.checksum();
    int32_t end = writing.target.model.form.end();
    if (writing.request.chat && end >= 0 && session.tokens.back() != end) session.tokens.push_back(end);
    writing.lease.write(session);
    writing.lease = {};  // the client may go on as soon as it has read the answer
  }
  if (writing.variant) experiment_->answered(writing.answer->id(), *writing.variant, writing.answer->written());
}

void Server::write_whole(Writing& writing, Reply& reply) {
  try {
    writing.follow([](const std::string&) {}, metrics_);
    finish(writing);
    reply.set_content(writing.answer->whole(), json_type);
  } catch (const HungUp&) {
    reply.status = 499;  // as nginx counts it; nobody reads it
  }
}

// All events come from one call, so that a server that shuts down lets the stream come to its end.
void Server::stream(const std::shared_ptr<Writing>& writing, Reply& reply) {
  reply.set_header("Cache-Control", "no-store");
  reply.set_header("X-Accel-Buffering", "no");
  reply.set_chunked_content_provider("text/event-stream", [this, writing](size_t, httplib::DataSink& sink) {
    auto send = [&](const std::string& event) {
      if (!sink.write(event.data(), event.size())) throw HungUp();
    };
    try {
      std::string begin = writing->answer->begin();
      if (!begin.empty()) send(begin);
      writing->follow(send, metrics_);
      finish(*writing);
      send(writing->answer->end());
    } catch (const HungUp&) {
      return false;
    } catch (const Refusal& refusal) {
      std::string body = error_body(refusal);
      body.pop_back();
      std::string event = sse(body);
      if (!sink.write(event.data(), event.size())) return false;
    }
    sink.done();
    return true;
  });
}

void Server::embed(const Query& query, Reply& reply) {
  EmbeddingRequest request = parse_embedding_request(query.body, options_.request);
  Target target = find(request.model);
  ServedModel& model = target.model;
  std::vector<std::vector<int32_t>> inputs;
  int64_t count = 0;
  for (const Prompt& prompt : request.inputs) {
    inputs.push_back(tokens_of(prompt, model, "input"));
    count += static_cast<int64_t>(inputs.back().size());
  }
  nlohmann::ordered_json answer = {
      {"object", "list"}, {"data", nlohmann::ordered_json::array()}, {"model", target.name()}};
  for (size_t i = 0; i < inputs.size(); ++i) {
    Job job{.prompt = inputs[i], .adapters = target.adapters, .embedding = true};
    job.client = client_of(query), job.deadline = Clock::now() + options_.timeout;
    auto ticket = model.engine.submit(std::move(job));
    std::optional<Event> event;
    while (!(event = ticket->wait(patience)))
      if (hung_up()) {
        ticket->cancel();
        reply.status = 499;
        return;
      }
    if (ended_badly(event->finish)) refuse_finish(event->finish);
    nlohmann::ordered_json numbers = event->embedding;
    if (request.base64)
      numbers =
          base64({reinterpret_cast<const char*>(event->embedding.data()), event->embedding.size() * sizeof(float)});
    answer["data"].push_back({{"object", "embedding"}, {"index", i}, {"embedding", numbers}});
  }
  answer["usage"] = {{"prompt_tokens", count}, {"total_tokens", count}};
  reply.set_content(answer.dump() + "\n", json_type);
}

void Server::rate(const Query& query, Reply& reply) {
  Feedback feedback = parse_feedback(query.body);
  if (!experiment_->rate(feedback.id, feedback.up))
    throw Refusal(404, fmt::format("there is no answer {} of experiment {}", feedback.id, experiment_->name()), "id");
  reply.set_content("{\"status\":\"ok\"}\n", json_type);
}

void Server::show_experiment(Reply& reply) const { reply.set_content(experiment_->json(), json_type); }

void Server::tokenize(const Query& query, Reply& reply) {
  TokenizeRequest request = parse_tokenize_request(query.body);
  ServedModel& model = find(request.model).model;
  std::vector<int32_t> tokens = model.tokenizer.encode(request.text);
  nlohmann::ordered_json answer = {{"tokens", tokens}, {"pieces", nlohmann::ordered_json::array()}};
  for (int32_t token : tokens) answer["pieces"].push_back(model.tokenizer.piece_bytes(token));
  answer["count"] = tokens.size();
  reply.set_content(answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n", json_type);
}

}  // namespace longhand::serve
