// longhand bench serve: load on a running server.
#include "src/cli/bench_load.h"

#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

namespace longhand::cli {
namespace {

nlohmann::ordered_json json_of(const serve::Quantiles& q) {
  return {{"p50", q.half}, {"p90", q.nine_tenths}, {"p99", q.ninety_nine}, {"max", q.most}};
}

void print_json(const serve::LoadReport& r) {
  nlohmann::ordered_json json = {{"seconds", r.seconds},
                                 {"answers", r.answers},
                                 {"left", r.left},
                                 {"tokens", r.tokens},
                                 {"tokens_per_s", static_cast<double>(r.tokens) / r.seconds},
                                 {"errors", r.errors},
                                 {"first_token_s", json_of(r.first_token)},
                                 {"between_tokens_s", json_of(r.between_tokens)},
                                 {"answer_s", json_of(r.whole)},
                                 {"fastest_client_s", r.fastest_client},
                                 {"slowest_client_s", r.slowest_client},
                                 {"memory_before", r.server_memory_before},
                                 {"memory_after", r.server_memory_after}};
  fmt::print("{}\n", json.dump());
}

void print_text(const serve::LoadReport& r) {
  fmt::print("{} answers, {} left in the middle, {} tokens in {:.1f} s: {:.1f} tokens/s\n", r.answers, r.left, r.tokens,
             r.seconds, static_cast<double>(r.tokens) / r.seconds);
  fmt::print("{:<16} {:>9} {:>9} {:>9} {:>9}\n", "milliseconds", "p50", "p90", "p99", "max");
  for (auto [name, q] :
       {std::pair("first token", &r.first_token), {"between tokens", &r.between_tokens}, {"whole answer", &r.whole}})
    fmt::print("{:<16} {:>9.1f} {:>9.1f} {:>9.1f} {:>9.1f}\n", name, 1e3 * q->half, 1e3 * q->nine_tenths,
               1e3 * q->ninety_nine, 1e3 * q->most);
  if (r.fastest_client > 0)
    fmt::print("an answer of the luckiest client took {:.2f} s in the mean, of the unluckiest {:.2f} s\n",
               r.fastest_client, r.slowest_client);
  if (r.server_memory_before > 0 && r.server_memory_after > 0)
    fmt::print("the server's memory: {:.1f} MB before, {:.1f} MB after\n", r.server_memory_before / 1e6,
               r.server_memory_after / 1e6);
  for (const auto& [what, count] : r.errors) fmt::print("error: {} ({} times)\n", what, count);
}

}  // namespace

void declare_load(CLI::App& command, serve::LoadOptions& load) {
  auto add = [&](const char* name, auto& value, const char* meaning, const char* type) {
    command.add_option(name, value, meaning)->type_name(type)->group("Load");
  };
  add("--url", load.url, "of the server; LONGHAND_API_KEY holds its key", "URL");
  add("--prompt", load.prompt, "text to go on from", "TEXT");
  add("--clients", load.clients, "connections, each asking for one answer at a time", "N");
  add("--rate", load.rate, "requests a second, at random moments; 0 = each client asks again at once", "NUMBER");
  add("--seconds", load.seconds, "for which new requests are begun", "NUMBER");
  add("--hang-up", load.hang_up, "share of the requests whose client goes away in the middle", "NUMBER");
}

void run_load(serve::LoadOptions load, const Common& common) {
  load.seed = common.seed;
  if (load.clients < 1 || load.clients > 4096) fail_usage("--clients {}: it is between 1 and 4096", load.clients);
  if (!(load.rate >= 0)) fail_usage("--rate {}: it is 0 (closed loop) or more", load.rate);
  if (!(load.seconds > 0)) fail_usage("--seconds {}: it is above 0", load.seconds);
  if (load.tokens < 1) fail_usage("--tokens {}: it is 1 or more", load.tokens);
  if (!(load.hang_up >= 0 && load.hang_up <= 1)) fail_usage("--hang-up {}: it is a share, 0 to 1", load.hang_up);
  if (!load.url.starts_with("http://")) fail_usage("--url {}: it begins with http://", load.url);
  if (const char* key = std::getenv("LONGHAND_API_KEY")) load.key = key;
  serve::LoadReport report = serve::generate_load(load);
  common.json ? print_json(report) : print_text(report);
  std::fflush(stdout);
  if (!report.errors.empty()) fail("bench serve: requests failed");
}

}  // namespace longhand::cli
