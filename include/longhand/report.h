// One training run as one HTML page that needs no network: its curves, its validation table, its configuration.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "longhand/answers.h"

namespace longhand {

/// A line chart as SVG text, 720 x 280, that stands alone in a page with the classes of report_page's style sheet.
struct Chart {
  struct Series {
    std::string name;
    std::vector<std::pair<double, double>> points;  // x ascending; a y that is not finite breaks the line
    bool strong = true;  // false: a thin line behind the others (raw values, single languages)
  };
  std::string title, x_label, y_label;
  std::vector<Series> series;
  bool logarithmic = false;                           // the y axis
  std::vector<std::pair<double, std::string>> marks;  // vertical lines with a note "what: more": skipped steps, stops

  std::string svg() const;
};

/// What was at work from when on: a bar a row, from a step to the end, or none. Drawn as Chart is.
struct Timeline {
  struct Row {
    std::string name;
    double from = 0;  // not finite: never
  };
  std::string title, x_label;
  double end = 1;
  std::vector<Row> rows;

  std::string svg() const;
};

/// The page of a run from the text of its log.jsonl; `name` is its heading, `answers` those of its answers.jsonl.
/// Fails, with the line's number, on a line that is no JSON object of a known type; the last line may be cut short (a
/// run that was killed).
std::string report_page(std::string_view log, std::string_view name, const std::vector<Answer>& answers = {});

}  // namespace longhand
