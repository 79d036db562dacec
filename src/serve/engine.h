// The batch engine: one thread owns device, decoder and writer; texts join and leave the batch between two tokens.
//
//   submit() -> queue, one line a client, taken in turn -> slots of the decoder -> a step: a share of every prompt that
//   is being read, then one token of every text that is being written -> events, one queue a job
//
// What a text becomes depends on its prompt, rules and seed alone, never on its neighbours (the decoder's promise).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "longhand/generate.h"
#include "longhand/session.h"
#include "longhand/text.h"

namespace longhand::serve {

using Clock = std::chrono::steady_clock;

/// One prompt and how to go on from it. Continuation i draws from the random stream's step i.
struct Job {
  std::vector<int32_t> prompt;  // at least one token, each of the vocabulary
  SamplingParameters rules;
  int32_t adapters = Decoder::no_adapters;  // the engine's stack that the text goes under
  int32_t choices = 1;
  int64_t tokens = 16;  // new tokens of each continuation at most
  std::vector<std::string> stops;
  std::vector<int32_t> ends;  // tokens that end a text and are no part of it
  int32_t top = 0;            // likeliest tokens to note beside each drawn one
  bool embedding = false;     // nothing is written: the one event carries the mean of the prompt's final hidden states
  bool keep = false;          // the last event carries the session as it then stands; of one continuation
  std::shared_ptr<const ChoiceTree> guide;  // what may be written; null = anything
  std::shared_ptr<const Session> session;   // which the prompt goes on from; null = from the beginning
  std::string client;                       // jobs of one client are taken in order, clients in turn
  Clock::time_point deadline = Clock::time_point::max();
};

struct TokenNote {
  int32_t token;
  float logprob;                               // log softmax of the raw logits
  std::vector<std::pair<int32_t, float>> top;  // likeliest first
};

enum class Finish { none, stop, length, cancelled, timeout, failed };

/// A step of one continuation.
struct Event {
  int32_t choice = 0;
  std::string text;                  // what can be shown now: valid UTF-8, perhaps nothing
  std::optional<TokenNote> token;    // the token drawn; none in an event that only ends the text
  std::vector<float> embedding;      // [d_model], of a job that asked for it
  std::shared_ptr<Session> session;  // of a job that asked for it, with its last event
  Finish finish = Finish::none;      // otherwise the continuation's last event
};

/// The submitter's end of a job.
class Ticket {
 public:
  /// The next event, or none when none came in time. After every continuation has finished there are no more.
  std::optional<Event> wait(Clock::duration patience);
  void cancel();  // the engine drops the job before its next token; safe from any thread, at any time

  struct Shared;
  explicit Ticket(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

 private:
  std::shared_ptr<Shared> shared_;
};

struct EngineLimits {
  int64_t sequences = 8;    // texts side by side
  int64_t window = 0;       // this, ring and choice: of DecoderShape
  int64_t chunk = 64;       // prompt tokens read between two steps at most
  int64_t queue = 64;       // jobs that wait at most
  int64_t per_client = 16;  // jobs of one client that wait at most
  int64_t speculate = 0;    // tokens of a draft at most (longhand/speculation.h)
  std::optional<Dtype> ring{};
  std::optional<KeyChoice> choice{};

  DecoderShape decoder() const { return {sequences, window, chunk, ring, choice}; }
};

/// Counts since the start.
struct TextCounts {
  uint64_t prompt_tokens = 0, drawn_tokens = 0;
  uint64_t drafted_tokens = 0, accepted_tokens = 0;
  uint64_t finished = 0, cancelled = 0, timed_out = 0, failed = 0;  // continuations
};
/// The same of the weights alone, then of each stack of adapters, and the state of the moment.
struct EngineNumbers {
  std::vector<TextCounts> texts;
  uint64_t steps = 0;
  int64_t waiting = 0, running = 0;  // jobs
  int64_t sequences = 0, sequences_used = 0;

  TextCounts& of(int32_t adapters) { return texts[adapters + 1]; }
};

class Engine {
 public:
  /// All of them outlive the engine, and belong to it until then.
  Engine(Device& device, const ModelConfig& config, const ParameterSet& weights, const Tokenizer& tokenizer,
         const EngineLimits& limits, std::vector<AdapterStack> adapters = {});
  ~Engine();  // cancels what is there

  /// Throws Refusal: 409 when the job's session is that of another model or window; 429 when the client has too many
  /// jobs waiting, 503 when the queue is full or drain() was called.
  std::unique_ptr<Ticket> submit(Job job);

  void drain();       // no new jobs; those there go on
  void cancel_all();  // those there end too
  bool idle() const;  // nothing waits, nothing runs
  EngineNumbers numbers() const;
  const EngineLimits& limits() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace longhand::serve
