// What heads a set of examples teaches.
#include <algorithm>
#include <set>

#include "longhand/files.h"
#include "longhand/heads.h"
#include "longhand/instructions.h"

namespace longhand {
namespace {

/// A head as the examples want it.
struct Wanted {
  HeadKind kind;
  std::map<std::string, const InstructionExample*> labels;  // with the first example that has it
};

std::string place_of(const InstructionExample& example) { return fmt::format("{}:{}", example.path, example.line); }

class Collector {
 public:
  explicit Collector(const HeadOptions& options) : options_(options) {}

  void add(const InstructionExample& example) {
    if (!example.label.empty()) take(options_.name, HeadKind::label, example.label, example);
    for (const std::string& tag : example.tags) take(options_.name, HeadKind::tags, tag, example);
    for (const auto& [slot, label] : example.state) take(slot, HeadKind::state, label, example);
  }
  const std::map<std::string, Wanted>& heads() const { return heads_; }

 private:
  void take(const std::string& name, HeadKind kind, const std::string& label, const InstructionExample& example) {
    if (name.empty())
      fail_usage("{}: the example has {}, for which a head is made or found by --head NAME", place_of(example),
                 kind == HeadKind::tags ? "tags" : "a label");
    auto [entry, fresh] = heads_.try_emplace(name, Wanted{kind, {}});
    if (entry->second.kind != kind)
      fail_usage("{}: head {} is to say {} here and {} before: give them to two runs", place_of(example), name,
                 what(kind), what(entry->second.kind));
    entry->second.labels.try_emplace(label, &example);
  }
  static const char* what(HeadKind kind) {
    return kind == HeadKind::tags ? "tags" : kind == HeadKind::state ? "states" : "labels";
  }

  const HeadOptions& options_;
  std::map<std::string, Wanted> heads_;
};

/// O, and B-x and I-x for every x.
std::vector<std::string> all_tags(const std::map<std::string, const InstructionExample*>& found) {
  std::set<std::string> types;
  for (const auto& [tag, example] : found)
    if (tag != "O") types.insert(tag.substr(2));
  std::vector<std::string> tags{"O"};
  for (const std::string& type : types) tags.push_back("B-" + type), tags.push_back("I-" + type);
  return tags;
}

HeadConfig make_head(const std::string& name, const Wanted& wanted, const HeadOptions& options) {
  HeadConfig head{.name = name, .kind = wanted.kind, .crf = false, .lookahead = 0, .labels = {}};
  if (wanted.kind == HeadKind::tags) head.crf = options.crf, head.lookahead = options.lookahead;
  if (wanted.kind != HeadKind::state) head.labels = options.labels;
  if (!head.labels.empty()) return head;
  if (wanted.kind == HeadKind::tags) {
    head.labels = all_tags(wanted.labels);
  } else {
    for (const auto& [label, example] : wanted.labels) head.labels.push_back(label);
    if (head.labels.size() < 2)
      fail_usage("{}: every example has the label \"{}\": there is nothing to tell apart",
                 place_of(*wanted.labels.begin()->second), printable(head.labels[0]));
  }
  return head;
}

/// A head of the model goes on as it was made.
void check_known(const HeadConfig& known, const Wanted& wanted, const HeadOptions& options) {
  if (known.kind != wanted.kind)
    fail_usage("the model's head {} says {}, not {}: give the new one another name", known.name,
               head_kind_name(known.kind), head_kind_name(wanted.kind));
  if (known.kind == HeadKind::state) return;
  if (!options.labels.empty() && options.labels != known.labels)
    fail_usage("--labels {}: the model's head {} has {}; another --head makes a new one",
               fmt::join(options.labels, ","), known.name, fmt::join(known.labels, ","));
  if (options.crf && !known.crf)
    fail_usage("--crf: the model's head {} has no transitions; another --head makes a new one", known.name);
  if (options.lookahead && options.lookahead != known.lookahead)
    fail_usage("--lookahead {}: the model's head {} was made with {}", options.lookahead, known.name, known.lookahead);
}

}  // namespace

std::vector<std::string> find_heads(const InstructionFile& file, const HeadOptions& options,
                                    std::vector<HeadConfig>& heads) {
  Collector collector(options);
  for (const InstructionExample& example : file.examples) collector.add(example);
  if (!options.name.empty() && !collector.heads().contains(options.name))
    fail_usage("--head {}: no example has a label or tags", options.name);
  std::vector<std::string> names;
  for (const auto& [name, wanted] : collector.heads()) {
    auto found = std::find_if(heads.begin(), heads.end(), [&](const HeadConfig& h) { return h.name == name; });
    if (found != heads.end())
      check_known(*found, wanted, options);
    else
      found = heads.insert(heads.end(), make_head(name, wanted, options));
    for (const auto& [label, example] : wanted.labels)
      if (found->find(label) < 0)
        fail("{}: head {} has no label \"{}\": it has {}", place_of(*example), name, printable(label),
             fmt::join(found->labels, ", "));
    names.push_back(name);
  }
  return names;
}

}  // namespace longhand
