// The presets are the files weights/presets/*.json, taken into the program as they stand.
#include <array>

#include "longhand/config.h"
#include "src/base/embed.h"

LONGHAND_EMBED(longhand_preset_tiny, "weights/presets/tiny.json")
LONGHAND_EMBED(longhand_preset_small, "weights/presets/small.json")
LONGHAND_EMBED(longhand_preset_base, "weights/presets/base.json")
LONGHAND_EMBED(longhand_preset_large, "weights/presets/large.json")
LONGHAND_EMBED(longhand_preset_7b, "weights/presets/7b.json")

namespace longhand {

struct Preset {
  const char *name, *json;
};
static const std::array<Preset, 5> presets{{{"tiny", longhand_preset_tiny},
                                            {"small", longhand_preset_small},
                                            {"base", longhand_preset_base},
                                            {"large", longhand_preset_large},
                                            {"7b", longhand_preset_7b}}};

ModelConfig preset(std::string_view name) {
  for (const Preset& p : presets)
    if (name == p.name) return parse_config(p.json, std::string("preset ") + p.name);
  fail_usage("there is no preset \"{}\": the presets are tiny, small, base, large and 7b", name);
}

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& p : presets) names.emplace_back(p.name);
  return names;
}

}  // namespace longhand
