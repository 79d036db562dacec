// Import and export against the checkpoints that Hugging Face's models wrote (scripts/goldens/huggingface.py).
#include "longhand/interchange.h"

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "longhand/files.h"
#include "longhand/parameters.h"

using namespace longhand;

namespace {

struct Folder {
  std::string path;
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "longhand.XXXXXX").string();
    path = mkdtemp(pattern.data());
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string operator/(const std::string& name) const { return path + "/" + name; }
};

const std::string kGoldens = "tests/goldens/";

bool same_tensor(const SafetensorsFile& a, const SafetensorsFile& b, const std::string& name) {
  ConstTensor left = a.tensor(name), right = b.tensor(name);
  return left.type() == right.type() && a.full_shape(name) == b.full_shape(name) &&
         std::memcmp(left.data(), right.data(), static_cast<size_t>(left.bytes())) == 0;
}

// The words with which something fails; "done" when it does not.
template <class Action>
std::string failure(Action action) {
  try {
    action();
    return "done";
  } catch (const Error& error) {
    return error.what();
  }
}

#define FAILS_WITH(action, words)                                \
  do {                                                           \
    std::string message = failure([&] { action; });              \
    CHECK_MESSAGE(message.find(words) != message.npos, message); \
  } while (false)

// A copy of a golden checkpoint with one piece of its config.json replaced.
void copy_with(const std::string& from, const std::string& to, const std::string& old, const std::string& replacement) {
  std::filesystem::copy(kGoldens + from, to);
  std::string settings = read_file(to + "/config.json");
  size_t at = settings.find(old);
  REQUIRE_MESSAGE(at != settings.npos, old);
  write_file(to + "/config.json", settings.replace(at, old.size(), replacement));
}

}  // namespace

TEST_CASE("a Hugging Face checkpoint imports to the weights and configuration of its golden") {
  Folder folder;
  for (const char* name : {"hf_transfo_xl_post", "hf_xlnet", "hf_xlnet_segments"}) {
    CAPTURE(name);
    ImportReport report = import_checkpoint(kGoldens + name, folder / "a.safetensors",
                                            {.segments = std::string(name) == "hf_xlnet_segments"});
    SafetensorsFile have(folder / "a.safetensors"), want(kGoldens + name + "/golden.safetensors");
    CHECK(read_config(have) == read_config(want));
    CHECK(report.config == read_config(want));
    for (const ParameterInfo& info : parameter_list(report.config)) CHECK(same_tensor(have, want, info.name));
    CHECK(have.verify() == static_cast<int64_t>(parameter_list(report.config).size()));
  }
}

TEST_CASE("an adaptive checkpoint imports to its golden, its clusters multiplied out, with its words") {
  Folder folder;
  const std::string source = kGoldens + "hf_transfo_xl_adaptive";
  ImportReport report = import_checkpoint(source, folder / "a.safetensors", {});
  CHECK(report.left_out.empty());
  SafetensorsFile have(folder / "a.safetensors"), want(source + "/golden.safetensors");
  CHECK(report.config == read_config(want));
  int64_t parameters = 0, matrices = 0;
  for (const ParameterInfo& info : parameter_list(report.config)) {
    CAPTURE(info.name);
    parameters += info.shape.elements(), matrices += info.matrix ? info.shape.elements() : 0;
    REQUIRE(have.full_shape(info.name) == want.full_shape(info.name));
    for (int64_t i = 0; i < info.shape.elements(); ++i) {
      float value = want.tensor(info.name).as<float>()[i];
      CHECK(have.tensor(info.name).as<float>()[i] == doctest::Approx(value).epsilon(1e-5));
    }
  }
  CHECK(report.config.parameters() == parameters);
  CHECK(report.config.matrix_parameters() == matrices);
  ConstTensor words = have.tensor("tokenizer.words");
  CHECK(std::string(static_cast<const char*>(words.data()), words.bytes()) == read_file(source + "/vocab.txt"));
  FAILS_WITH(export_checkpoint(folder / "a.safetensors", folder / "b", "auto"), "adaptive softmax");

  std::filesystem::copy(source, folder / "c");
  std::filesystem::remove((folder / "c") + "/vocab.txt");
  FAILS_WITH(import_checkpoint(folder / "c", folder / "d", {}), "run scripts/convert_checkpoint.py");
  write_file((folder / "c") + "/vocab.txt", "<unk>\n<eos>\n");
  FAILS_WITH(import_checkpoint(folder / "c", folder / "d", {}), "2 words, config.json has a vocabulary of 60");
}

TEST_CASE("export gives back every tensor of a Hugging Face checkpoint that a model needs") {
  Folder folder;
  for (const char* name : {"hf_transfo_xl_post", "hf_xlnet", "hf_xlnet_segments"}) {
    CAPTURE(name);
    import_checkpoint(kGoldens + name, folder / "a", {.segments = std::string(name) == "hf_xlnet_segments"});
    CHECK(export_checkpoint(folder / "a", folder / name, "auto") == (name[3] == 'x' ? "xlnet" : "transfo-xl"));
    SafetensorsFile have((folder / name) + "/model.safetensors"), want(kGoldens + name + "/model.safetensors");
    bool segments = std::string(name) == "hf_xlnet_segments";
    for (const std::string& tensor : want.names()) {
      CAPTURE(tensor);
      bool tied = tensor == "lm_loss.weight" || tensor == "crit.out_layers.0.weight";
      if (!tied) CHECK(have.full_shape(tensor) == want.full_shape(tensor));
      bool zeroed = tensor.ends_with("mask_emb") ||
                    (!segments && (tensor.ends_with("seg_embed") || tensor.ends_with("r_s_bias")));
      if (!tied && !zeroed && !tensor.ends_with("inv_freq")) CHECK(same_tensor(have, want, tensor));
    }
    import_checkpoint(folder / name, folder / "b", {.segments = segments});
    CHECK(read_file(folder / "a") == read_file(folder / "b"));
  }
}

TEST_CASE("a PyTorch pickle is answered with the script that converts it") {
  Folder folder;
  FAILS_WITH(import_checkpoint(kGoldens + "hf_transfo_xl_pre", folder / "a", {}), "run scripts/convert_checkpoint.py");
}

TEST_CASE("what the model cannot express is refused with the setting's name") {
  Folder folder;
  auto refused = [&](const std::string& from, const std::string& old, const std::string& replacement,
                     const std::string& words) {
    std::string copy = folder / ("copy" + std::to_string(std::hash<std::string>()(replacement)));
    copy_with(from, copy, old, replacement);
    FAILS_WITH(import_checkpoint(copy, folder / "a", {}), words);
  };
  refused("hf_transfo_xl_post", "\"cutoffs\": []", "\"cutoffs\": [10]", "adaptive softmax");
  refused("hf_transfo_xl_post", "\"div_val\": 1", "\"div_val\": 4", "projected embedding");
  refused("hf_transfo_xl_post", "\"attn_type\": 0", "\"attn_type\": 2", "attn_type 2");
  refused("hf_transfo_xl_post", "\"d_inner\": 19", "\"d_inner\": 20", "config.json needs");
  refused("hf_transfo_xl_post", "\"d_inner\": 19", "\"d_inner\": \"19\"", "of the wrong type");
  refused("hf_transfo_xl_post", "\"n_layer\": 2", "\"n_layer\": 3", "no tensor");
  refused("hf_transfo_xl_post", "\"model_type\": \"transfo-xl\"", "\"model_type\": \"gpt2\"", "model_type \"gpt2\"");
  refused("hf_transfo_xl_adaptive", "\"div_val\": 2", "\"div_val\": 1", "adaptive softmax");
  refused("hf_transfo_xl_adaptive", "\"d_embed\": 16", "\"d_embed\": 12", "config.json needs");
  refused("hf_transfo_xl_adaptive", "\"div_val\": 2", "\"div_val\": 32", "tail width 0");
  refused("hf_transfo_xl_adaptive", "  20,", "  9,", "cutoffs ascend");
  refused("hf_xlnet", "\"attn_type\": \"uni\"", "\"attn_type\": \"bi\"", "sees the future");
  refused("hf_xlnet", "\"same_length\": false", "\"same_length\": true", "same_length");
  refused("hf_xlnet", "\"mem_len\": 7", "\"mem_len\": null", "--mem-len");
  refused("hf_xlnet", "\"ff_activation\": \"gelu\"", "\"ff_activation\": \"gelu_new\"", "ff_activation");
  refused("hf_xlnet", "{", "", "not a JSON object");
  std::string deep = "\"attn_type\": " + std::string(300000, '[') + std::string(300000, ']');
  refused("hf_xlnet", "\"attn_type\": \"uni\"", deep, "not a JSON object");
  FAILS_WITH(import_checkpoint(folder / "none", folder / "a", {}), "no such file or folder");
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
}

TEST_CASE("a model that no format can express is not exported, with the reasons") {
  Folder folder;
  FAILS_WITH(export_checkpoint(kGoldens + "reference_topk.safetensors", folder / "a", "auto"), "it is pre-norm");
  FAILS_WITH(export_checkpoint(kGoldens + "reference_topk.safetensors", folder / "a", "llama"), "unknown format");
  CHECK_FALSE(std::filesystem::exists(folder / "a"));
}
