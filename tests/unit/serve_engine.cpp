// The batch engine: what a text becomes does not depend on who is written beside it, and nobody waits for ever.
#include <doctest/doctest.h>

#include <thread>

#include "longhand/error.h"
#include "src/serve/engine.h"
#include "src/serve/engine_queue.h"
#include "src/serve/refusal.h"

using namespace longhand;
using namespace longhand::serve;
using namespace std::chrono_literals;

namespace {

struct Bench {
  std::unique_ptr<Device> device = make_device("cpu", {.threads = 2});
  ModelConfig config;
  std::unique_ptr<ParameterSet> weights;
  Tokenizer tokenizer = words();

  Bench() {
    config.vocab_size = 40, config.d_model = 16, config.n_layer = 2, config.n_head = 2, config.d_head = 8;
    config.d_ff = 32, config.mem_len = 16, config.same_length = true;
    weights = std::make_unique<ParameterSet>("weights", config, Dtype::fp32);
    weights->commit(*device);
    initialize(*device, *weights, 5);
  }
  static Tokenizer words() {
    std::string list = "<unk>\n<eos>\n";
    for (int i = 2; i < 40; ++i) list += fmt::format("w{}\n", i);
    return Tokenizer::of_words(list);
  }
  Engine engine(EngineLimits limits = {.sequences = 4, .chunk = 8}) {
    return Engine(*device, config, *weights, tokenizer, limits);
  }
};

Job job(uint64_t seed, int32_t choices = 1, int64_t tokens = 12) {
  Job job{.prompt = {1, 5, 9, static_cast<int32_t>(seed % 40)}, .choices = choices, .tokens = tokens};
  for (uint64_t i = 0; i < seed * 3; ++i) job.prompt.push_back(static_cast<int32_t>(2 + i % 30));
  job.rules.stream = {seed, 0, RandomUse::sampling, 0};
  job.client = fmt::format("client {}", seed % 3);
  return job;
}

struct Result {
  std::vector<int32_t> tokens;
  std::string text;
  Finish finish = Finish::none;
  bool operator==(const Result&) const = default;
};

// Everything that comes of a job, by continuation.
std::vector<Result> all(Ticket& ticket, int32_t choices) {
  std::vector<Result> results(choices);
  for (int32_t open = choices; open > 0;) {
    auto event = ticket.wait(60s);
    REQUIRE(event);
    Result& result = results.at(event->choice);
    REQUIRE(result.finish == Finish::none);
    result.text += event->text;
    if (event->token) result.tokens.push_back(event->token->token);
    result.finish = event->finish;
    open -= event->finish != Finish::none;
  }
  return results;
}

// What longhand generate does with the same prompt, rules and seed.
std::vector<Result> alone(Bench& bench, const Job& job) {
  std::vector<Result> results;
  for (int32_t c = 0; c < job.choices; ++c) {
    Decoder decoder(*bench.device, bench.config, *bench.weights, {});
    Writer writer(*bench.device, decoder);
    WrittenText text{0, job.prompt, job.rules};
    text.rules.stream.step = static_cast<uint64_t>(c);
    WrittenText* one = &text;
    Result result{{}, {}, Finish::length};
    for (int64_t i = 0; i < job.tokens; ++i) result.tokens.push_back(writer.next({&one, 1})[0][0].token);
    results.push_back(result);
  }
  return results;
}

}  // namespace

TEST_CASE("a text is the same alone, in any company, and by the writer itself") {
  Bench bench;
  std::vector<std::vector<Result>> expected;
  for (uint64_t seed = 0; seed < 9; ++seed) expected.push_back(alone(bench, job(seed, 1 + seed % 3)));
  Engine engine = bench.engine();
  std::vector<std::unique_ptr<Ticket>> tickets;
  for (uint64_t seed = 0; seed < 9; ++seed) tickets.push_back(engine.submit(job(seed, 1 + seed % 3)));
  for (uint64_t seed = 0; seed < 9; ++seed) {
    auto results = all(*tickets[seed], 1 + seed % 3);
    for (size_t c = 0; c < results.size(); ++c) {
      CHECK(results[c].tokens == expected[seed][c].tokens);
      CHECK(results[c].finish == Finish::length);
    }
  }
  EngineNumbers numbers = engine.numbers();
  CHECK(numbers.steps < numbers.texts[0].drawn_tokens);  // they were written side by side
}

TEST_CASE("drafts change nothing but the number of steps; a kept session is the same") {
  Bench bench;
  auto run = [&](int64_t speculate, EngineNumbers& numbers) {
    Engine engine = bench.engine({.sequences = 4, .chunk = 32, .speculate = speculate});
    std::vector<std::unique_ptr<Ticket>> tickets;
    std::vector<Job> jobs;
    for (uint64_t seed = 0; seed < 5; ++seed) {
      Job repeated = job(seed, 1, 15);
      for (int i = 0; i < 30; ++i) repeated.prompt.push_back(2 + i % 4);
      repeated.rules.temperature = seed % 2 ? 0.0f : 0.5f, repeated.rules.top_k = 3;
      repeated.rules.repetition_penalty = seed == 3 ? 1.2f : 1.0f;
      if (seed == 1) repeated.stops = {"w3", "w30"};
      repeated.top = 2, repeated.keep = true;
      tickets.push_back(engine.submit(repeated));
    }
    std::vector<std::tuple<std::vector<TokenNote>, std::string, Finish, Session>> results;
    for (auto& ticket : tickets) {
      std::vector<TokenNote> notes;
      std::string text;
      for (;;) {
        auto event = ticket->wait(60s);
        REQUIRE(event);
        text += event->text;
        if (event->token) notes.push_back(*event->token);
        if (event->finish == Finish::none) continue;
        REQUIRE(event->session);
        results.emplace_back(notes, text, event->finish, *event->session);
        break;
      }
    }
    numbers = engine.numbers();
    return results;
  };
  EngineNumbers plain, drafted;
  auto expected = run(0, plain), got = run(8, drafted);
  for (size_t i = 0; i < expected.size(); ++i) {
    auto& [notes, text, finish, session] = expected[i];
    auto& [other_notes, other_text, other_finish, other_session] = got[i];
    REQUIRE(notes.size() == other_notes.size());
    for (size_t n = 0; n < notes.size(); ++n) {
      CHECK(notes[n].token == other_notes[n].token);
      CHECK(notes[n].logprob == other_notes[n].logprob);
      CHECK(notes[n].top == other_notes[n].top);
    }
    CHECK(text == other_text);
    CHECK(finish == other_finish);
    CHECK(session.tokens == other_session.tokens);
    CHECK(session.position == other_session.position);
    CHECK(session.rings == other_session.rings);
  }
  CHECK(plain.texts[0].drafted_tokens == 0);
  CHECK(drafted.texts[0].drafted_tokens > 0);
}

TEST_CASE("a guided job ends with one of its choices, whatever its neighbours") {
  Bench bench;
  std::vector<Result> expected = alone(bench, job(5));  // while nobody else uses the device
  Engine engine = bench.engine({.sequences = 4, .chunk = 32, .speculate = 4});
  const int32_t end = 1;
  Job guided = job(2, 3, 12);
  std::vector<std::vector<int32_t>> choices = {{7, 8}, {7, 8, 9}, {12}};
  guided.guide = std::make_shared<ChoiceTree>(choices, std::span(&end, 1));
  guided.ends = {end};
  auto ticket = engine.submit(guided), other = engine.submit(job(5));
  for (const Result& result : all(*ticket, 3)) {
    CHECK(std::count(choices.begin(), choices.end(), result.tokens) == 1);
    CHECK(result.finish == Finish::stop);
  }
  CHECK(all(*other, 1)[0].tokens == expected[0].tokens);
}

TEST_CASE("many threads submit, read, give up; the engine comes to rest with all slots free") {
  Bench bench;
  Engine engine = bench.engine();
  std::vector<std::thread> clients;
  for (int t = 0; t < 6; ++t)
    clients.emplace_back([&engine, t] {
      for (uint64_t i = 0; i < 4; ++i) {
        auto ticket = engine.submit(job(t + i, 1 + i % 2, 20));
        if ((t + i) % 3 == 0) {
          ticket->wait(5ms);
          ticket->cancel();
        }
        for (int32_t open = 1 + i % 2; open > 0;)
          if (auto event = ticket->wait(60s)) open -= event->finish != Finish::none;
        engine.numbers();
      }
    });
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < 1000 && !engine.idle(); ++i) std::this_thread::sleep_for(10ms);
  EngineNumbers numbers = engine.numbers();
  CHECK(numbers.sequences_used == 0);
  CHECK(numbers.texts[0].finished + numbers.texts[0].cancelled == 36);
}

TEST_CASE("stop texts, end tokens and the token limit end a text") {
  Bench bench;
  Job plain = job(3, 1, 12);
  auto tokens = alone(bench, plain)[0].tokens;
  Engine engine = bench.engine();
  Job ended = plain;
  ended.ends = {tokens[4]};
  size_t first = std::find(tokens.begin(), tokens.end(), tokens[4]) - tokens.begin();
  Result result = all(*engine.submit(ended), 1)[0];
  CHECK(result.finish == Finish::stop);
  CHECK(result.tokens.size() == first);
  Job stopped = plain;
  stopped.stops = {bench.tokenizer.piece_bytes(tokens[6])};
  result = all(*engine.submit(stopped), 1)[0];
  CHECK(result.finish == Finish::stop);
  CHECK(result.text.find(stopped.stops[0]) == std::string::npos);
  Job nothing = plain;
  nothing.tokens = 0;
  CHECK(all(*engine.submit(nothing), 1)[0] == Result{{}, "", Finish::length});
}

TEST_CASE("a job that runs out of time, is cancelled or comes too late is told so") {
  Bench bench;
  Engine engine = bench.engine({.sequences = 1, .chunk = 8, .queue = 3, .per_client = 2});
  Job late = job(0, 1, 1000000);
  late.deadline = Clock::now() + 50ms;
  CHECK(all(*engine.submit(late), 1)[0].finish == Finish::timeout);

  auto holder = engine.submit(job(0, 1, 1000000));
  while (engine.numbers().running == 0) std::this_thread::sleep_for(1ms);
  auto status = [&](const Job& next) {
    try {
      return engine.submit(next), 200;
    } catch (const Refusal& refusal) {
      return refusal.status;
    }
  };
  CHECK(status(job(0)) == 200);
  CHECK(status(job(0)) == 200);
  CHECK(status(job(0)) == 429);
  CHECK(status(job(1)) == 200);
  CHECK(status(job(2)) == 503);
  CHECK(status(job(0, 2)) == 400);
  engine.drain();
  CHECK(status(job(1)) == 503);
  engine.cancel_all();
  CHECK(all(*holder, 1)[0].finish == Finish::cancelled);
}

TEST_CASE("clients are served in turn, each client's jobs in order") {
  FairQueue queue;
  auto add = [&](const char* client, int64_t tokens) {
    queue.push({{.prompt = {1}, .tokens = tokens, .client = client}, std::make_shared<Ticket::Shared>()});
  };
  add("a", 1), add("a", 2), add("a", 3), add("b", 4), add("c", 5), add("b", 6);
  queue.remove([](const QueuedJob& queued) { return queued.job.tokens == 5; }, [](QueuedJob&) {});
  std::vector<int64_t> order;
  while (!queue.empty()) order.push_back(queue.pop().job.tokens);
  CHECK(order == std::vector<int64_t>{1, 4, 2, 6, 3});
}

TEST_CASE("an embedding does not depend on how its text was cut or who stood beside it") {
  Bench bench;
  Job wanted = job(7);
  wanted.embedding = true;
  std::vector<float> first;
  for (int64_t chunk : {1, 3, 64}) {
    Engine engine = bench.engine({.sequences = 4, .chunk = chunk});
    auto company = engine.submit(job(4));
    auto event = engine.submit(wanted)->wait(60s);
    REQUIRE(event);
    REQUIRE(event->embedding.size() == 16);
    if (first.empty()) first = event->embedding;
    CHECK(event->embedding == first);
    all(*company, 1);
  }
}
