#include "src/serve/engine.h"

#include <algorithm>
#include <cmath>
#include <list>
#include <numeric>
#include <thread>

#include "longhand/error.h"
#include "src/generate/piece_stream.h"
#include "src/serve/engine_queue.h"
#include "src/serve/refusal.h"

namespace longhand::serve {
namespace {

// One continuation in a slot of the decoder.
struct Text {
  WrittenText written;
  PieceStream stream;
  int32_t choice;
  int64_t drawn = 0;
};

// A job whose texts have slots. Until its prompt is read only the first of them has taken tokens.
struct RunningJob {
  Job job;
  std::shared_ptr<Ticket::Shared> shared;
  std::list<Text> texts;
  std::vector<double> hidden;  // sum over the tokens read, of an embedding
  bool read = false;
};

float value_of(const void* data, Dtype type, int64_t index) {
  return type == Dtype::bf16 ? static_cast<float>(static_cast<const bf16*>(data)[index])
                             : static_cast<const float*>(data)[index];
}

// The `count` largest of log softmax(logits), largest first, the smaller token first among equals.
std::vector<std::pair<int32_t, float>> likeliest(std::span<const float> logits, int32_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  size_t kept = std::min<size_t>(count, order.size());
  std::partial_sort(order.begin(), order.begin() + kept, order.end(),
                    [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  double sum = 0, high = logits[order[0]];
  for (float x : logits) sum += std::exp(x - high);
  std::vector<std::pair<int32_t, float>> top;
  for (size_t i = 0; i < kept; ++i)
    top.emplace_back(order[i], static_cast<float>(logits[order[i]] - high - std::log(sum)));
  return top;
}

}  // namespace

struct Engine::State {
  State(Device& device, const ModelConfig& config, const ParameterSet& weights, const Tokenizer& tokenizer,
        const EngineLimits& limits, std::vector<AdapterStack> adapters);
  void run();
  void sweep();
  void admit();
  void start(QueuedJob queued);
  void read_prompts();
  void add_hidden(const std::vector<RunningJob*>& reading, const std::vector<int64_t>& shares);
  void finish_reading(RunningJob& job);
  void write_tokens();
  TokenNote note(const Writer::Drawn& drawn, const Job& job);
  bool take(RunningJob& job, Text& text, TokenNote note, int64_t after);
  void end(RunningJob& job, Text& text, Event event);
  void end_all(RunningJob& job, Finish finish);
  void tell_removed(QueuedJob& queued, Finish finish);
  void count(const Job& job, Finish finish, uint64_t texts = 1);
  std::optional<Finish> over(const Job& job, const Ticket::Shared& shared) const;
  void publish();

  Device& device;
  const Tokenizer& tokenizer;
  EngineLimits limits;
  Decoder decoder;
  Writer writer;
  std::vector<int32_t> free;  // slots
  std::list<RunningJob> running;
  EngineNumbers counts;  // the engine thread's own

  mutable std::mutex mutex;  // of what follows
  std::condition_variable changed;
  FairQueue queue;
  EngineNumbers published;
  bool draining = false, cancelling = false, stopping = false;
  std::thread thread;
};

Engine::State::State(Device& device, const ModelConfig& config, const ParameterSet& weights, const Tokenizer& tokenizer,
                     const EngineLimits& limits, std::vector<AdapterStack> adapters)
    : device(device),
      tokenizer(tokenizer),
      limits(limits),
      decoder(device, config, weights, limits.decoder(), adapters),
      writer(device, decoder) {
  counts.texts.resize(1 + adapters.size()), published.texts.resize(1 + adapters.size());
  for (int64_t s = limits.sequences; s-- > 0;) free.push_back(static_cast<int32_t>(s));
  counts.sequences = published.sequences = limits.sequences;
}

// Between two steps the lock is held for a moment; while the device computes it is not.
void Engine::State::run() {
  for (;;) {
    {
      std::unique_lock lock(mutex);
      publish();
      changed.wait(lock, [&] { return stopping || !queue.empty() || !running.empty(); });
      sweep();
      if (stopping) return publish();
      admit();
      publish();
    }
    try {
      read_prompts();
      write_tokens();
    } catch (const std::exception&) {
      for (RunningJob& job : running) end_all(job, Finish::failed);
    }
    running.remove_if([](const RunningJob& job) { return job.texts.empty(); });
  }
}

void Engine::State::publish() {
  counts.waiting = queue.size(), counts.running = static_cast<int64_t>(running.size());
  counts.sequences_used = counts.sequences - static_cast<int64_t>(free.size());
  published = counts;
}

std::optional<Finish> Engine::State::over(const Job& job, const Ticket::Shared& shared) const {
  if (stopping || cancelling || shared.cancelled) return Finish::cancelled;
  if (Clock::now() >= job.deadline) return Finish::timeout;
  return std::nullopt;
}

// Ends what was cancelled or has run out of time, in the queue and in the slots.
void Engine::State::sweep() {
  Finish why = Finish::none;
  queue.remove(
      [&](const QueuedJob& queued) {
        auto found = over(queued.job, *queued.shared);
        if (found) why = *found;
        return found.has_value();
      },
      [&](QueuedJob& queued) { tell_removed(queued, why); });
  for (RunningJob& job : running)
    if (auto found = over(job.job, *job.shared)) end_all(job, *found);
  running.remove_if([](const RunningJob& job) { return job.texts.empty(); });
}

void Engine::State::tell_removed(QueuedJob& queued, Finish finish) {
  count(queued.job, finish, queued.job.choices);
  for (int32_t c = 0; c < queued.job.choices; ++c) queued.shared->post({.choice = c, .finish = finish});
}

// The job whose turn it is waits until there are slots for all of its texts; nobody overtakes it.
void Engine::State::admit() {
  while (!queue.empty() && queue.front().job.choices <= static_cast<int64_t>(free.size())) start(queue.pop());
}

// Behind the jobs under the same adapters: neighbours are computed together.
void Engine::State::start(QueuedJob queued) {
  auto place = std::find_if(running.begin(), running.end(),
                            [&](const RunningJob& other) { return other.job.adapters > queued.job.adapters; });
  RunningJob& running_job = *running.emplace(place);
  running_job.job = std::move(queued.job), running_job.shared = std::move(queued.shared);
  const Job& job = running_job.job;
  for (int32_t c = 0; c < job.choices; ++c) {
    WrittenText written{free.back(), job.prompt, job.rules, {.most = limits.speculate}, job.guide};
    written.rules.stream.step = static_cast<uint64_t>(c);
    decoder.reset(written.sequence);
    decoder.adapt(written.sequence, job.adapters);
    if (job.session) {
      resume_session(device, decoder, written, *job.session, job.session->model, "the session");
      written.tokens.insert(written.tokens.end(), job.prompt.begin(), job.prompt.end());
    }
    free.pop_back();
    running_job.texts.push_back({std::move(written), PieceStream(tokenizer, job.stops), c});
  }
  if (job.embedding) running_job.hidden.assign(decoder.config().d_model, 0);
  counts.of(job.adapters).prompt_tokens += job.prompt.size();
}

// One call of the decoder for the prompts that are being read, each with an equal share of the rows. A text's last
// token is fed by the writer; an embedding reads all of its tokens.
void Engine::State::read_prompts() {
  std::vector<RunningJob*> reading;
  for (RunningJob& job : running)
    if (!job.read) reading.push_back(&job);
  if (static_cast<int64_t>(reading.size()) > decoder.rows()) reading.resize(decoder.rows());
  std::vector<Decoder::Input> inputs;
  std::vector<RunningJob*> owners;
  std::vector<int64_t> shares;
  int64_t rows = decoder.rows();
  for (size_t i = 0; i < reading.size(); ++i) {
    RunningJob& job = *reading[i];
    const WrittenText& text = job.texts.front().written;
    int64_t at = decoder.position(text.sequence);
    int64_t left = static_cast<int64_t>(text.tokens.size()) - at - (job.job.embedding ? 0 : 1);
    int64_t share = std::min(left, std::max<int64_t>(1, rows / static_cast<int64_t>(reading.size() - i)));
    if (share <= 0) continue;
    rows -= share;
    inputs.push_back({text.sequence, std::span(text.tokens).subspan(at, share), false, true});
    owners.push_back(&job), shares.push_back(share);
  }
  if (!inputs.empty()) {
    decoder.forward(inputs);
    add_hidden(owners, shares);
  }
  for (RunningJob* job : reading) finish_reading(*job);
}

void Engine::State::add_hidden(const std::vector<RunningJob*>& reading, const std::vector<int64_t>& shares) {
  bool wanted = std::any_of(reading.begin(), reading.end(), [](RunningJob* job) { return job->job.embedding; });
  if (!wanted) return;
  Tensor states = decoder.hidden();
  std::vector<char> bytes(states.bytes());
  device.download(bytes.data(), states);
  int64_t row = 0, width = decoder.config().d_model;
  for (size_t i = 0; i < reading.size(); ++i)
    for (int64_t r = 0; r < shares[i]; ++r, ++row)
      if (reading[i]->job.embedding)
        for (int64_t c = 0; c < width; ++c)
          reading[i]->hidden[c] += value_of(bytes.data(), states.type(), row * width + c);
}

// When the prompt has been read the other continuations go on from where the first one stands.
void Engine::State::finish_reading(RunningJob& job) {
  Text& first = job.texts.front();
  int64_t at = decoder.position(first.written.sequence), size = static_cast<int64_t>(first.written.tokens.size());
  if (job.job.embedding) {
    if (at < size) return;
    Event event{.finish = Finish::stop};
    for (double sum : job.hidden) event.embedding.push_back(static_cast<float>(sum / size));
    return end(job, first, std::move(event));
  }
  if (at < size - 1) return;
  job.read = true;
  for (Text& text : job.texts) decoder.copy(text.written.sequence, first.written.sequence);
  if (job.job.tokens == 0) end_all(job, Finish::length);
}

void Engine::State::write_tokens() {
  std::vector<WrittenText*> texts;
  std::vector<Text*> places;
  std::vector<RunningJob*> owners;
  for (RunningJob& job : running)
    if (job.read)
      for (Text& text : job.texts) texts.push_back(&text.written), places.push_back(&text), owners.push_back(&job);
  if (texts.empty()) return;
  std::vector<std::vector<Writer::Drawn>> drawn = writer.next(texts);
  ++counts.steps;
  std::vector<std::vector<TokenNote>> all(drawn.size());  // before anything changes: the logits are those of all texts
  for (size_t i = 0; i < drawn.size(); ++i)
    for (const Writer::Drawn& one : drawn[i]) all[i].push_back(note(one, owners[i]->job));
  for (size_t i = 0; i < places.size(); ++i) {
    int64_t after = static_cast<int64_t>(all[i].size());
    for (TokenNote& one : all[i])
      if (++counts.of(owners[i]->job.adapters).drawn_tokens; take(*owners[i], *places[i], std::move(one), --after))
        break;
  }
}

TokenNote Engine::State::note(const Writer::Drawn& drawn, const Job& job) {
  TokenNote note{drawn.token, drawn.logprob, {}};
  if (job.top > 0) {
    std::vector<float> logits(decoder.config().vocab_size);
    device.download(logits.data(), writer.logits().rows(drawn.row, 1));
    note.top = likeliest(logits, job.top);
  }
  return note;
}

// A text's next token, with so many drawn ones `after` it; true when the text ends here.
bool Engine::State::take(RunningJob& job, Text& text, TokenNote note, int64_t after) {
  Event event{.choice = text.choice};
  ++text.drawn;
  const std::vector<int32_t>& ends = job.job.ends;
  if (std::find(ends.begin(), ends.end(), note.token) != ends.end()) {
    event.finish = Finish::stop;
  } else {
    event.text = text.stream.push(note.token);
    event.token = std::move(note);
    if (text.stream.stopped() || (after == 0 && text.written.complete()))
      event.finish = Finish::stop;
    else if (text.drawn >= job.job.tokens)
      event.finish = Finish::length;
  }
  if (event.finish == Finish::none) {
    job.shared->post(std::move(event));
    return false;
  }
  event.text += text.stream.finish();
  writer.take_back(text.written, after);
  if (job.job.keep) event.session = std::make_shared<Session>(take_session(device, decoder, text.written, ""));
  end(job, text, std::move(event));
  return true;
}

void Engine::State::end(RunningJob& job, Text& text, Event event) {
  count(job.job, event.finish);
  TextCounts& counted = counts.of(job.job.adapters);
  counted.drafted_tokens += text.written.speculation.drafted;
  counted.accepted_tokens += text.written.speculation.accepted;
  free.push_back(text.written.sequence);
  job.texts.remove_if([&](const Text& other) { return &other == &text; });
  job.shared->post(std::move(event));
}

void Engine::State::end_all(RunningJob& job, Finish finish) {
  while (!job.texts.empty()) {
    Text& text = job.texts.front();
    end(job, text, {.choice = text.choice, .text = text.stream.finish(), .finish = finish});
  }
}

void Engine::State::count(const Job& job, Finish finish, uint64_t texts) {
  TextCounts& of = counts.of(job.adapters);
  uint64_t& counter = finish == Finish::cancelled ? of.cancelled
                      : finish == Finish::timeout ? of.timed_out
                      : finish == Finish::failed  ? of.failed
                                                  : of.finished;
  counter += texts;
}

Engine::Engine(Device& device, const ModelConfig& config, const ParameterSet& weights, const Tokenizer& tokenizer,
               const EngineLimits& limits, std::vector<AdapterStack> adapters)
    : state_(std::make_unique<State>(device, config, weights, tokenizer, limits, std::move(adapters))) {
  state_->thread = std::thread([state = state_.get()] { state->run(); });
}

Engine::~Engine() {
  {
    std::lock_guard lock(state_->mutex);
    state_->draining = state_->stopping = true;
  }
  state_->changed.notify_all();
  state_->thread.join();
}

std::unique_ptr<Ticket> Engine::submit(Job job) {
  State& s = *state_;
  if (job.prompt.empty() || job.choices < 1) throw Refusal(400, "a prompt of no tokens");
  if (job.choices > s.limits.sequences)
    throw Refusal(400, fmt::format("n {}: this server writes {} texts at once", job.choices, s.limits.sequences), "n");
  try {
    if (job.session) check_session(s.decoder, *job.session, job.session->model, "the session");
  } catch (const Error& error) {
    throw Refusal(409, error.what(), "session");
  }
  auto shared = std::make_shared<Ticket::Shared>();
  std::lock_guard lock(s.mutex);
  if (s.draining) throw Refusal(503, "the server is shutting down");
  if (s.queue.size() >= s.limits.queue)
    throw Refusal(503, fmt::format("the queue is full ({} requests wait): try again later", s.queue.size()));
  if (s.queue.size(job.client) >= s.limits.per_client)
    throw Refusal(429, fmt::format("{} of your requests wait already: try again later", s.queue.size(job.client)));
  s.queue.push({std::move(job), shared});
  s.changed.notify_all();
  return std::make_unique<Ticket>(shared);
}

void Engine::drain() {
  std::lock_guard lock(state_->mutex);
  state_->draining = true;
}

void Engine::cancel_all() {
  std::lock_guard lock(state_->mutex);
  state_->draining = state_->cancelling = true;
}

bool Engine::idle() const {
  std::lock_guard lock(state_->mutex);
  return state_->queue.empty() && state_->published.running == 0;
}

EngineNumbers Engine::numbers() const {
  std::lock_guard lock(state_->mutex);
  EngineNumbers numbers = state_->published;
  numbers.waiting = state_->queue.size();
  return numbers;
}

const EngineLimits& Engine::limits() const { return state_->limits; }

}  // namespace longhand::serve
