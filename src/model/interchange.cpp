#include "longhand/interchange.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "longhand/files.h"
#include "longhand/parameters.h"
#include "src/base/json.h"
#include "src/model/interchange_layout.h"

namespace longhand {

using namespace interchange;
namespace fs = std::filesystem;

namespace {

float fp16_value(uint16_t bits) {
  uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  uint32_t word = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}

std::vector<float> float_values(const SafetensorsFile& file, const std::string& name) {
  ConstTensor tensor = file.tensor(name);
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  auto convert = [&](auto* from, auto value) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = value(from[i]);
  };
  switch (tensor.type()) {
    case Dtype::fp32:
      convert(tensor.as<float>(), [](float x) { return x; });
      break;
    case Dtype::bf16:
      convert(tensor.as<bf16>(), [](bf16 x) { return static_cast<float>(x); });
      break;
    case Dtype::fp64:
      convert(static_cast<const double*>(tensor.data()), [](double x) { return static_cast<float>(x); });
      break;
    case Dtype::fp16:
      convert(static_cast<const uint16_t*>(tensor.data()), fp16_value);
      break;
    default:
      fail("{}: tensor {} is {}: weights are floating-point numbers", file.path(), printable(name),
           dtype_name(tensor.type()));
  }
  return values;
}

// Rows of ours from the whole of theirs, or back.
void move_piece(const Piece& piece, float* ours, float* theirs, bool to_theirs) {
  float* rows = ours + piece.first * piece.columns;
  for (int64_t row = 0; row < piece.rows; ++row)
    for (int64_t column = 0; column < piece.columns; ++column) {
      float& here = rows[row * piece.columns + column];
      float& there = theirs[piece.transposed ? column * piece.rows + row : row * piece.columns + column];
      (to_theirs ? there : here) = to_theirs ? here : there;
    }
}

struct Source {
  std::string weights, settings;
};

// A folder, or a .safetensors file whose config.json stands beside it.
Source find_source(const std::string& source) {
  fs::path path(source), folder = fs::is_directory(path) ? path : path.parent_path();
  fs::path weights = fs::is_directory(path) ? path / "model.safetensors" : path;
  fs::path pickled = fs::is_directory(path) ? path / "pytorch_model.bin" : path;
  if (!fs::exists(path)) fail("{}: no such file or folder", source);
  if (pickled.extension() == ".bin" && fs::exists(pickled) && (pickled == path || !fs::exists(weights)))
    fail("{}: a PyTorch file; run scripts/convert_checkpoint.py {} (Python with PyTorch), then import again",
         pickled.string(), pickled.string());
  if (fs::is_directory(path) && fs::exists(path / "model.safetensors.index.json") && !fs::exists(weights))
    fail("{}: its tensors are spread over several files: join them in one model.safetensors first", source);
  if (!fs::exists(weights)) fail("{}: it has no model.safetensors", source);
  if (!fs::exists(folder / "config.json"))
    fail("{}: no config.json beside it; the checkpoint's settings stand there", weights.string());
  return {weights.string(), (folder / "config.json").string()};
}

const Format& format_of(const Json& settings, const std::string& where) {
  std::string type = setting<std::string>(settings, where, "model_type", "");
  for (const Format* format : {&transfo_xl, &xlnet})
    if (type == format->name) return *format;
  fail("{}: model_type \"{}\": \"transfo-xl\" and \"xlnet\" are read", where, type);
}

// The bare model, without a head, is saved without the prefix.
std::string found_name(const SafetensorsFile& file, const std::string& name) {
  constexpr std::string_view prefix = "transformer.";
  if (file.has(name) || !name.starts_with(prefix)) return name;
  std::string bare = name.substr(prefix.size());
  return file.has(bare) ? bare : name;
}

// Both the embedding and the output layer use one matrix here; a checkpoint may hold it twice, but not two of them.
void check_tied(const SafetensorsFile& file, const Format& format, std::set<std::string>& used) {
  if (!file.has(format.tied)) return;
  used.insert(format.tied);
  if (float_values(file, format.tied) != float_values(file, found_name(file, format.embedding)))
    fail("{}: {} is another matrix than the embedding: Longhand's output layer is the embedding", file.path(),
         format.tied);
}

// A piece's tensor; its rows and columns must be as config.json says before anything is allocated for them.
std::vector<float> read_piece(const SafetensorsFile& file, const Piece& piece, const std::string& name) {
  std::vector<int64_t> have = file.full_shape(name), want = piece.shape;
  if (!piece.projection.empty() && have.size() == 2) want[1] = have[1];
  if (have != want)
    fail("{}: tensor {} is {}, config.json needs {}", file.path(), name, Json(have).dump(), Json(want).dump());
  return float_values(file, name);
}

// Rows of ours: theirs [rows, e] times the transpose of a projection [columns, e].
void multiply_piece(const SafetensorsFile& file, const Piece& piece, std::vector<float>& theirs, float* ours,
                    std::set<std::string>& used) {
  std::string name = found_name(file, piece.projection);
  int64_t inner = static_cast<int64_t>(theirs.size()) / piece.rows;
  std::vector<float> projection = read_piece(file, {.theirs = name, .shape = {piece.columns, inner}}, name);
  used.insert(name);
  make_device("cpu")->matmul(
      {.out = Tensor(ours + piece.first * piece.columns, Dtype::fp32, {piece.rows, piece.columns}),
       .a = Tensor(theirs.data(), Dtype::fp32, {piece.rows, inner}),
       .b = Tensor(projection.data(), Dtype::fp32, {piece.columns, inner})});
}

using Values = std::map<std::string, std::vector<float>>;

Values read_pieces(const SafetensorsFile& file, const ModelConfig& config, const std::vector<Piece>& pieces,
                   std::set<std::string>& used) {
  // Nothing is allocated before a tensor's shape was found to be right: config.json could name any size.
  std::map<std::string, Shape> shapes;
  for (const ParameterInfo& info : parameter_list(config)) shapes[info.name] = info.shape;
  Values values;
  for (const Piece& piece : pieces) {
    std::string name = found_name(file, piece.theirs);
    if (!file.has(name) && !piece.tied.empty()) name = found_name(file, piece.tied);
    if (!piece.constant.empty()) used.insert(name);
    if (piece.ours.empty()) continue;
    std::vector<float>& ours = values[piece.ours];
    if (!file.has(name) && piece.ours == "output.bias") {  // the bare model has none
      ours.resize(static_cast<size_t>(config.vocab_size));
      continue;
    }
    std::vector<float> theirs = read_piece(file, piece, name);
    ours.resize(static_cast<size_t>(shapes.at(piece.ours).elements()));
    if (piece.projection.empty())
      move_piece(piece, ours.data(), theirs.data(), false);
    else
      multiply_piece(file, piece, theirs, ours.data(), used);
    used.insert(name);
  }
  return values;
}

std::vector<NamedTensor> parameter_tensors(const ModelConfig& config, const Values& values) {
  std::vector<NamedTensor> tensors;
  for (const ParameterInfo& info : parameter_list(config))
    tensors.push_back({info.name, {values.at(info.name).data(), Dtype::fp32, info.shape}});
  return tensors;
}

NamedTensor text_tensor(const char* name, const std::string& text) {
  return {name, {text.data(), Dtype::u8, {static_cast<int64_t>(text.size())}}};
}

// The words of a word-level vocabulary, one a line, from vocab.txt; empty when the checkpoint comes without.
std::string read_words(const fs::path& folder, int64_t vocab_size) {
  std::string path = (folder / "vocab.txt").string();
  if (!fs::exists(path)) {
    for (const char* pickled : {"vocab.pkl", "vocab.bin"})
      if (fs::exists(folder / pickled))
        fail(
            "{}: its words are pickled; run scripts/convert_checkpoint.py {}, which writes vocab.txt, then import "
            "again",
            (folder / pickled).string(), folder.string());
    return {};
  }
  std::string words = read_file(path, int64_t{1} << 30);
  if (!words.empty() && !words.ends_with('\n')) words += '\n';
  int64_t lines = std::count(words.begin(), words.end(), '\n');
  if (lines != vocab_size) fail("{}: {} words, config.json has a vocabulary of {}", path, lines, vocab_size);
  return words;
}

Json read_json(const std::string& path) {
  Json json = parse_json<Json>(read_file(path, 16 << 20));
  if (!json.is_object()) fail("{}: not a JSON object", path);
  return json;
}

const Format& choose_format(const std::string& name, const ModelConfig& config, const std::string& path) {
  std::string reasons;
  for (const Format* format : {&transfo_xl, &xlnet}) {
    if (name != "auto" && name != format->name) continue;
    std::string obstacle = format->obstacle(config);
    if (obstacle.empty()) return *format;
    reasons += fmt::format("{}{}: {}", reasons.empty() ? "" : "; ", format->name, obstacle);
  }
  if (reasons.empty()) fail_usage("unknown format \"{}\": it is transfo-xl, xlnet or auto", name);
  fail("{}: cannot be exported ({})", path, reasons);
}

}  // namespace

ImportReport import_checkpoint(const std::string& source, const std::string& output, const ImportOptions& options) {
  Source paths = find_source(source);
  Json settings = read_json(paths.settings);
  const Format& format = format_of(settings, paths.settings);
  ImportReport report{format.read_settings(settings, paths.settings, options), format.name, {}};
  report.config.check();
  SafetensorsFile file(paths.weights);
  std::set<std::string> used;
  if (report.config.cutoffs.empty()) check_tied(file, format, used);
  Values values = read_pieces(file, report.config, format.pieces(report.config), used);
  for (const std::string& name : file.names())
    if (!used.contains(name)) report.left_out.push_back(name);

  std::vector<NamedTensor> tensors = parameter_tensors(report.config, values);
  fs::path folder = fs::path(paths.settings).parent_path();
  std::string tokenizer, words;
  if (fs::path model = folder / "spiece.model"; fs::exists(model)) {
    tokenizer = read_file(model.string(), int64_t{1} << 30);
    tensors.push_back(text_tensor("tokenizer.model", tokenizer));
  } else if (&format == &transfo_xl) {
    words = read_words(folder, report.config.vocab_size);
    if (!words.empty()) tensors.push_back(text_tensor("tokenizer.words", words));
  }
  write_safetensors(output, tensors, {{"longhand.kind", "weights"}, {"longhand.config", report.config.json()}});
  return report;
}

std::string export_checkpoint(const std::string& source, const std::string& folder, const std::string& name) {
  SafetensorsFile file(source);
  ModelConfig config = read_config(file);
  if (config.extended())
    fail("{}: cannot be exported: it has low-rank updates or adapters beside its weights, which no other format knows",
         source);
  const Format& format = choose_format(name, config, source);
  Values values;
  for (const ParameterInfo& info : parameter_list(config)) {
    std::string master = "master." + info.name;  // a checkpoint with a second, wider copy
    values[info.name] = float_values(file, file.has(master) ? master : info.name);
    if (static_cast<int64_t>(values[info.name].size()) != info.shape.elements())
      fail("{}: tensor {} has {} entries, the configuration needs {}", source, info.name, values[info.name].size(),
           info.shape.elements());
  }
  std::vector<NamedTensor> tensors;
  std::vector<std::vector<float>> storage;
  for (const Piece& piece : format.pieces(config)) {
    Shape shape;
    for (int64_t size : piece.shape) shape.size[shape.rank++] = size;
    std::vector<float> theirs = piece.constant;
    theirs.resize(static_cast<size_t>(shape.elements()));
    if (!piece.ours.empty()) move_piece(piece, values.at(piece.ours).data(), theirs.data(), true);
    storage.push_back(std::move(theirs));
    tensors.push_back({piece.theirs, {storage.back().data(), Dtype::fp32, shape}});
  }
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) fail("{}: cannot make the folder: {}", folder, error.message());
  if (file.has("tokenizer.model")) {
    ConstTensor model = file.tensor("tokenizer.model");
    write_file((fs::path(folder) / "spiece.model").string(),
               {static_cast<const char*>(model.data()), static_cast<size_t>(model.bytes())});
  }
  write_file((fs::path(folder) / "config.json").string(), format.write_settings(config).dump(2) + "\n");
  write_safetensors((fs::path(folder) / "model.safetensors").string(), tensors, {{"format", "pt"}});
  return format.name;
}

}  // namespace longhand
