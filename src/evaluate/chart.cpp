#include <algorithm>
#include <cmath>
#include <limits>

#include "longhand/error.h"
#include "longhand/report.h"

namespace longhand {
namespace {

constexpr double width = 720, height = 280, left = 62, right = 96, top = 34, bottom = 40;
constexpr int colours = 8;  // classes c0 ... c7 of the style sheet
constexpr size_t most_points = 600;

std::string escape(std::string_view text) {
  std::string out;
  for (char c : text) {
    if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '&')
      out += "&amp;";
    else if (c == '"')
      out += "&quot;";
    else
      out += c;
  }
  return out;
}

std::string number(double value) {
  double size = std::abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return fmt::format("{:.1e}", value);
  if (size >= 10000) return fmt::format("{:.4g}k", value / 1000);
  return fmt::format("{:.4g}", value);
}

/// A step of 1, 2 or 5 times a power of ten that cuts `range` into about `parts`.
double round_step(double range, int parts) {
  double raw = range / parts, power = std::pow(10, std::floor(std::log10(raw)));
  double part = raw / power;
  return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

struct Axis {
  double low, high, from, to;
  bool logarithmic = false;

  double at(double value) const {
    double a = low, b = high;
    if (logarithmic) value = std::log10(value), a = std::log10(a), b = std::log10(b);
    return from + (value - a) / (b - a) * (to - from);
  }
  std::vector<double> ticks(int parts) const {
    std::vector<double> ticks;
    if (logarithmic && high / low >= 30) {
      for (double t = std::pow(10, std::ceil(std::log10(low) - 1e-9)); t <= high * 1.0001; t *= 10) ticks.push_back(t);
    } else {
      double step = round_step(high - low, parts);
      for (double t = std::ceil(low / step - 1e-9) * step; t <= high + step * 1e-6; t += step)
        ticks.push_back(std::abs(t) < step * 1e-6 ? 0 : t);
    }
    return ticks;
  }
};

bool drawable(double y, bool logarithmic) { return std::isfinite(y) && (!logarithmic || y > 0); }

/// The extent of all series with a little room; without any point, [0, 1] each way.
std::pair<Axis, Axis> axes(const Chart& chart) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  double x0 = inf, x1 = -inf, y0 = inf, y1 = -inf;
  for (const auto& series : chart.series)
    for (auto [x, y] : series.points)
      if (drawable(y, chart.logarithmic))
        x0 = std::min(x0, x), x1 = std::max(x1, x), y0 = std::min(y0, y), y1 = std::max(y1, y);
  if (x0 > x1) x0 = 0, x1 = 1, y0 = chart.logarithmic ? 0.1 : 0, y1 = 1;
  if (x0 == x1) x1 = x0 + 1;
  if (chart.logarithmic) {
    y0 /= 1.15, y1 *= 1.15;
  } else {
    bool flat = y1 - y0 <= 1e-6 * std::max(std::abs(y0), std::abs(y1));  // rounding is no curve
    double room = flat ? std::max(std::abs(y1) * 0.1, 1e-9) : (y1 - y0) * 0.06;
    y0 = y0 >= 0 && y0 < room ? 0 : y0 - room, y1 += room;
  }
  return {{x0, x1, left, width - right}, {y0, y1, height - bottom, top, chart.logarithmic}};
}

/// Evenly thinned to at most `most_points`, the first and last kept.
std::vector<std::pair<double, double>> thin(const std::vector<std::pair<double, double>>& points) {
  if (points.size() <= most_points) return points;
  std::vector<std::pair<double, double>> kept;
  for (size_t i = 0; i < most_points; ++i) kept.push_back(points[i * (points.size() - 1) / (most_points - 1)]);
  return kept;
}

std::string line_path(const Chart::Series& series, const Axis& x, const Axis& y) {
  std::string path;
  bool pen_up = true;
  for (auto [px, py] : thin(series.points)) {
    if (!drawable(py, y.logarithmic)) {
      pen_up = true;
      continue;
    }
    path += fmt::format("{}{:.1f} {:.1f}", pen_up ? "M" : "L", x.at(px), y.at(py));
    pen_up = false;
  }
  return path;
}

/// The picture's frame with its title above `at`.
std::string opening(const std::string& title, double tall, double at) {
  return fmt::format(
      "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{:.0f}\" "
      "y=\"18\">{}</text>",
      width, tall, escape(title), at, escape(title));
}

}  // namespace

std::string Chart::svg() const {
  auto [x, y] = axes(*this);
  std::string out = opening(title, height, left);
  for (double t : y.ticks(5))
    out += fmt::format(
        "<path class=\"grid\" d=\"M{:.0f} {:.1f}H{:.0f}\"/><text class=\"tick\" x=\"{:.0f}\" y=\"{:.1f}\" "
        "text-anchor=\"end\">{}</text>",
        left, y.at(t), width - right, left - 7, y.at(t) + 4, number(t));
  for (double t : x.ticks(6))
    out += fmt::format(
        "<path class=\"grid\" d=\"M{0:.1f} {1:.0f}v4\"/><text class=\"tick\" x=\"{0:.1f}\" y=\"{2:.0f}\" "
        "text-anchor=\"middle\">{3}</text>",
        x.at(t), height - bottom, height - bottom + 17, number(t));
  out += fmt::format("<text class=\"tick\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>", width - right,
                     height - 6, escape(x_label));
  out += fmt::format("<text class=\"tick\" x=\"{:.0f}\" y=\"18\" text-anchor=\"end\">{}</text>", width - right,
                     escape(y_label));
  double written = left;  // up to where the marks' words reach
  for (const auto& [at, note] : marks) {
    double place = std::clamp(x.at(at), left, width - right);
    out += fmt::format("<path class=\"mark\" d=\"M{0:.1f} {1:.0f}V{2:.0f}\"><title>{3}</title></path>", place, top,
                       height - bottom, escape(note));
    std::string word = note.substr(0, note.find(':'));
    double room = 6.5 * static_cast<double>(word.size()) + 6;
    if (place - room < written) continue;
    out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>", place - 4,
                       top + 9, escape(word));
    written = place;
  }

  std::vector<std::pair<double, std::string>> labels;  // at the lines' right ends
  for (size_t i = 0; i < series.size(); ++i) {
    const Series& s = series[i];
    std::string colour = fmt::format("c{}", i % colours);
    out += fmt::format("<path class=\"line {} {}\" d=\"{}\"><title>{}</title></path>", colour,
                       s.strong ? "strong" : "faint", line_path(s, x, y), escape(s.name));
    if (s.points.size() <= 40)
      for (auto [px, py] : s.points)
        if (drawable(py, logarithmic))
          out += fmt::format(
              "<circle class=\"dot {}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"><title>{}: {} at {}</title></circle>",
              colour, x.at(px), y.at(py), escape(s.name), number(py), number(px));
    if (!s.points.empty() && drawable(s.points.back().second, logarithmic) && !s.name.empty())
      labels.emplace_back(y.at(s.points.back().second), fmt::format("<tspan class=\"{}\">&#9632;</tspan> {} {}", colour,
                                                                    escape(s.name), number(s.points.back().second)));
  }
  // Labels that would overlap are pushed down, then the whole row up where it leaves the chart.
  std::sort(labels.begin(), labels.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  constexpr double line_height = 13;
  for (size_t i = 1; i < labels.size(); ++i)
    labels[i].first = std::max(labels[i].first, labels[i - 1].first + line_height);
  if (!labels.empty() && labels.back().first > height - bottom) labels.back().first = height - bottom;
  for (size_t i = labels.size(); i-- > 1;)
    labels[i - 1].first = std::min(labels[i - 1].first, labels[i].first - line_height);
  for (const auto& [at, text] : labels)
    out += fmt::format("<text class=\"label\" x=\"{:.0f}\" y=\"{:.1f}\">{}</text>", width - right + 8, at + 4, text);
  return out + "</svg>";
}

std::string Timeline::svg() const {
  constexpr double row_height = 17, names = 150;
  double bottom_edge = top + row_height * static_cast<double>(rows.size()), tall = bottom_edge + bottom;
  Axis x{0, std::max(end, 1.0), names, width - 20};
  std::string out = opening(title, tall, names);
  for (double t : x.ticks(8))
    out += fmt::format(
        "<path class=\"grid\" d=\"M{0:.1f} {1:.0f}V{2:.0f}\"/><text class=\"tick\" x=\"{0:.1f}\" y=\"{3:.0f}\" "
        "text-anchor=\"middle\">{4}</text>",
        x.at(t), top, bottom_edge + 4, bottom_edge + 17, number(t));
  out += fmt::format("<text class=\"tick\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">{}</text>", width - 20,
                     tall - 6, escape(x_label));
  for (size_t i = 0; i < rows.size(); ++i) {
    const Row& row = rows[i];
    double y = top + row_height * static_cast<double>(i);
    bool ever = std::isfinite(row.from), early = ever && row.from <= 0;
    out += fmt::format("<text class=\"label\" x=\"{:.0f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", names - 8,
                       y + 12, escape(row.name));
    double from = ever ? x.at(std::min(row.from, x.high)) : x.to;
    if (from > names) out += fmt::format("<path class=\"grid\" d=\"M{:.1f} {:.1f}H{:.1f}\"/>", names, y + 8, from);
    if (ever)
      out += fmt::format(
          "<rect class=\"bar {}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.0f}\" rx=\"3\">"
          "<title>{} trains from step {}</title></rect>",
          early ? "c0" : "c1", from, y + 2, std::max(2.0, x.to - from), row_height - 5, escape(row.name),
          number(row.from));
  }
  return out + "</svg>";
}

}  // namespace longhand
