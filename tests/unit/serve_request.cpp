// What the server takes from a client, and what it says to what it does not take; the form of its answers.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "src/serve/answer.h"
#include "src/serve/refusal.h"
#include "src/serve/request.h"

using namespace longhand;
using namespace longhand::serve;

namespace {

Refusal refused(const std::string& body, bool chat = false) {
  try {
    parse_text_request(body, chat, {});
  } catch (const Refusal& refusal) {
    return refusal;
  }
  return {0, "taken"};
}

}  // namespace

TEST_CASE("a completion request is read with OpenAI's names and defaults") {
  TextRequest plain = parse_text_request(R"({"prompt": "Once"})", false, {});
  CHECK(plain.prompts.at(0).text == "Once");
  CHECK(plain.tokens == 16);
  CHECK(plain.rules.temperature == 1);
  CHECK(!plain.seed);
  CHECK(plain.logprobs == -1);

  TextRequest full = parse_text_request(
      R"({"model": "m", "prompt": [[1, 2], [3]], "n": 2, "seed": 18446744073709551615, "temperature": 0.5, "top_k": 7,
          "min_p": 0.1, "stop": ["a", "b"], "logprobs": 0, "stream": true, "stream_options": {"include_usage": true},
          "user": "x", "presence_penalty": 0, "logit_bias": null})",
      false, {});
  CHECK(full.prompts.size() == 2);
  CHECK(full.prompts[0].ids == std::vector<int32_t>{1, 2});
  CHECK(*full.seed == UINT64_MAX);
  CHECK(full.rules.top_k == 7);
  CHECK(full.stops.size() == 2);
  CHECK(full.logprobs == 0);
  CHECK(full.include_usage);
}

TEST_CASE("choices are a list of texts") {
  TextRequest request = parse_text_request(R"({"prompt": "a", "guided_choice": ["yes", "no"]})", false, {});
  CHECK(request.guided == std::vector<std::string>{"yes", "no"});
  for (const char* wrong : {R"("yes")", "[]", "[1]", R"(["a", ""])", R"([["a"]])"})
    CHECK(refused(fmt::format(R"({{"prompt": "a", "guided_choice": {}}})", wrong)).param == "guided_choice");
  CHECK(refused(R"({"prompt": "a", "guided_choice": ["a"], "ignore_eos": true})").param == "ignore_eos");
}

TEST_CASE("a chat's messages are joined by role and end with the user's") {
  TextRequest chat = parse_text_request(
      R"({"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "a"},
          {"role": "user", "content": [{"type": "text", "text": "b"}]}], "logprobs": true, "top_logprobs": 3})",
      true, {});
  REQUIRE(chat.messages.size() == 2);
  CHECK(chat.messages[0].role == "system");
  CHECK(chat.messages[1].text == "a\nb");
  CHECK(chat.logprobs == 3);
  CHECK(refused(R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})", true)
            .param == "messages");
}

TEST_CASE("a request that cannot be obeyed is refused with the field at fault") {
  struct Wrong {
    const char *body, *param;
  };
  for (const Wrong& wrong : {Wrong{"", ""},
                             {"[]", ""},
                             {"{}", "prompt"},
                             {"{\"prompt\": \"\xff\"}", ""},
                             {R"({"prompt": []})", "prompt"},
                             {R"({"prompt": [1, "a"]})", "prompt"},
                             {R"({"prompt": [-1]})", "prompt"},
                             {R"({"prompt": [99999999999]})", "prompt"},
                             {R"({"prompt": "a", "n": 0})", "n"},
                             {R"({"prompt": "a", "n": 1e9})", "n"},
                             {R"({"prompt": ["a", "b"], "n": 9})", "n"},
                             {R"({"prompt": "a", "temperature": -1})", "temperature"},
                             {R"({"prompt": "a", "temperature": "hot"})", "temperature"},
                             {R"({"prompt": "a", "top_p": 0})", "top_p"},
                             {R"({"prompt": "a", "max_tokens": 99999999999999999999})", "max_tokens"},
                             {R"({"prompt": "a", "stop": [""]})", "stop"},
                             {R"({"prompt": "a", "stop": 3})", "stop"},
                             {R"({"prompt": "a", "seed": 0.5})", "seed"},
                             {R"({"prompt": "a", "presence_penalty": 1})", "presence_penalty"},
                             {R"({"prompt": "a", "best_of": 3})", "best_of"},
                             {R"({"prompt": "a", "stream_options": {}})", "stream_options"}}) {
    CAPTURE(wrong.body);
    Refusal refusal = refused(wrong.body);
    CHECK(refusal.status == 400);
    CHECK(refusal.param == wrong.param);
    std::string line = error_body(refusal);
    CHECK(line.find('\n') == line.size() - 1);
    CHECK(nlohmann::json::parse(line)["error"]["message"] == refusal.what());
  }
  std::string deep = R"({"prompt": [1, )" + std::string(100000, '[') + std::string(100000, ']') + "]}";
  CHECK(std::string(refused(deep).what()).find("nests deeper") != std::string::npos);
  CHECK(std::string(refused(R"({"prompt": "a", "temperatur": 1})").what()).find("did you mean \"temperature\"") !=
        std::string::npos);
}

TEST_CASE("a server-sent event is one block, whatever lines its data have") {
  CHECK(sse("[DONE]") == "data: [DONE]\n\n");
  CHECK(sse("a\nb") == "data: a\ndata: b\n\n");
  CHECK(sse("") == "data: \n\n");
}

TEST_CASE("base64 is that of RFC 4648") {
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foobar") == "Zm9vYmFy");
  CHECK(base64("\xff\xfe\xfd") == "//79");
}

TEST_CASE("the pieces of a streamed answer add up to the whole one") {
  Tokenizer tokenizer = Tokenizer::of_words("<unk>\n<eos>\none\ntwo\n");
  for (bool chat : {false, true}) {
    TextRequest request = parse_text_request(
        chat
            ? R"({"messages": [{"role": "user", "content": "a"}], "stream": true, "stream_options": {"include_usage": true}})"
            : R"({"prompt": "a", "stream": true, "logprobs": 1})",
        chat, {});
    TextAnswer answer(request, {"id", "m", "", 1, 2}, tokenizer, 5, {});
    std::string stream = answer.begin();
    stream += answer.take(0, {.text = "", .token = TokenNote{2, -1.5f, {{2, -1.5f}}}});
    stream += answer.take(0, {.text = " one", .token = TokenNote{3, -0.5f, {{3, -0.5f}}}});
    stream += answer.take(0, {.text = " two", .finish = Finish::stop});
    stream += answer.end();

    std::string joined, finish, last;
    for (size_t at = 0, end; (end = stream.find("\n\n", at)) != std::string::npos; at = end + 2) {
      REQUIRE(stream.substr(at, 6) == "data: ");
      last = stream.substr(at + 6, end - at - 6);
      if (last == "[DONE]") break;
      auto chunk = nlohmann::json::parse(last);
      for (auto& choice : chunk["choices"]) {
        joined += chat ? choice["delta"].value("content", "") : choice["text"].get<std::string>();
        if (choice["finish_reason"].is_string()) finish = choice["finish_reason"];
      }
    }
    CHECK(last == "[DONE]");
    CHECK(finish == "stop");
    auto whole = nlohmann::json::parse(answer.whole());
    auto choice = whole["choices"][0];
    CHECK(joined == (chat ? choice["message"]["content"] : choice["text"]).get<std::string>());
    CHECK(joined == (chat ? "one two" : " one two"));
    CHECK(whole["usage"]["completion_tokens"] == 2);
    if (!chat) CHECK(choice["logprobs"]["token_logprobs"] == nlohmann::json({-1.5, -0.5}));
  }
}
