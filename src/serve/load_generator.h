// A load generator: clients that ask a server for streamed completions, and what they lived through.
//
//   closed loop:  every client asks again as soon as its answer has ended, so `clients` requests are under way
//   open loop:    requests come at random moments, `rate` a second in the mean (Poisson), whether or not the server
//   keeps
//                 up; each waits for one of `clients` connections, and that wait is part of its latency
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace longhand::serve {

struct LoadOptions {
  std::string url = "http://127.0.0.1:8000", key, model, prompt = "Click the ";
  int clients = 8;
  double rate = 0;      // requests a second; 0 = closed loop
  double seconds = 10;  // new requests are begun for so long
  int64_t tokens = 64;  // of an answer; end tokens are ignored, so that every answer has as many
  double hang_up = 0;   // share of the requests whose client goes away in the middle
  uint64_t seed = 0;
};

/// Quantiles of durations in seconds; 0 where there were none.
struct Quantiles {
  double half = 0, nine_tenths = 0, ninety_nine = 0, most = 0;
};
Quantiles quantiles(std::vector<double> values);

struct LoadReport {
  double seconds = 0;                     // from the first request to the end of the last answer
  int64_t answers = 0, left = 0;          // whole answers; those whose client went away
  int64_t tokens = 0;                     // received
  std::map<std::string, int64_t> errors;  // by what went wrong
  Quantiles first_token, between_tokens, whole;
  double slowest_client = 0, fastest_client = 0;             // mean seconds of an answer, closed loop
  double server_memory_before = 0, server_memory_after = 0;  // resident bytes; 0 = the server does not say
};

/// Fails when the server cannot be reached at the beginning.
LoadReport generate_load(const LoadOptions& options);

}  // namespace longhand::serve
