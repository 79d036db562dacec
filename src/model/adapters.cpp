// Bottleneck adapters (Houlsby et al. 2019) behind a layer's attention and feed-forward part, on the part's output y
// before its dropout and before it joins the residual stream:
//
//   z = W_down y + b_down;   out = y + W_up act(z) + b_up
//   dW_up += d_out^T act(z);   d_z = act'(z) (d_out W_up);   dW_down += d_z^T y;   d_y = d_out + d_z W_down
#include "src/model/pass_state.h"
#include "src/model/project.h"

namespace longhand {

void Pass::State::lay_out_adapters(LayerActivations& a) {
  for (size_t site = 0; site < adapter_site_names.size(); ++site) {
    if (!config.adapter_on(static_cast<AdapterSite>(site))) continue;
    a.adapters[site].input = activation_arena.take(type, {shape.segment, shape.lanes, config.d_model});
    for (Tensor* narrow : {&a.adapters[site].down, &a.adapters[site].activated})
      *narrow = activation_arena.take(type, {shape.segment, shape.lanes, config.adapter_width});
  }
}

Tensor Pass::State::part_output(int64_t layer, AdapterSite site) {
  const AdapterActivations& a = activations(layer).adapters[static_cast<size_t>(site)];
  return (a.input ? a.input : output).rows(0, segment);
}

Tensor Pass::State::adapter_forward(int64_t layer, AdapterSite site, const Tensor& y) {
  if (!config.adapter_on(site)) return y;
  const AdapterActivations& a = activations(layer).adapters[static_cast<size_t>(site)];
  const AdapterTensors& w = weights->layers[layer].adapter(site);
  Tensor activated = a.activated.rows(0, segment), out = output.rows(0, segment);
  project(*device,
          {.out = matrix(activated),
           .pre_activation = matrix(a.down.rows(0, segment)),
           .a = matrix(y),
           .bias = w.down_bias,
           .activation = config.activation},
          w.down);
  project(*device, {.out = matrix(out), .a = matrix(activated), .bias = w.up_bias}, w.up);
  device->add({.out = out, .a = y, .b = out});
  return out;
}

// d_out may be the gradient of the stream itself, which goes on beside d_y: d_y therefore lies in `branch`.
Tensor Pass::State::adapter_backward(int64_t layer, AdapterSite site, const Tensor& d_out) {
  if (!config.adapter_on(site)) return d_out;
  const AdapterActivations& a = activations(layer).adapters[static_cast<size_t>(site)];
  const AdapterTensors &w = weights->layers[layer].adapter(site), &g = gradients->layers[layer].adapter(site);
  Tensor d_z = d_adapter.rows(0, segment), d_y = branch.rows(0, segment);
  weight_gradient(g.up, matrix(d_out), matrix(a.activated.rows(0, segment)));
  bias_gradient(g.up_bias, matrix(d_out));
  device->matmul({.out = matrix(d_z), .a = matrix(d_out), .b = w.up, .transpose_b = false});
  device->activation_backward({.d_x = matrix(d_z),
                               .d_out = matrix(d_z),
                               .x = matrix(a.down.rows(0, segment)),
                               .activation = config.activation});
  weight_gradient(g.down, matrix(d_z), matrix(a.input.rows(0, segment)));
  bias_gradient(g.down_bias, matrix(d_z));
  if (d_y.data() != d_out.data()) device->copy(d_y, d_out);
  device->matmul({.out = matrix(d_y), .a = matrix(d_z), .b = w.down, .transpose_b = false, .accumulate = true});
  return d_y;
}

}  // namespace longhand
