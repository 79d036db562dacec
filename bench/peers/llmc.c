// Times llm.c's CPU training step on a GPT-2 of given size with random weights. Built against a checkout of llm.c:
//   gcc -O3 -march=native -Ofast -fopenmp -DOMP -I LLM_C_DIR bench/peers/llmc.c -lm -o build/bench/llmc
//   OMP_NUM_THREADS=2 build/bench/llmc LANES TOKENS STEPS
// Prints one JSON line. FLOPs are counted as ours are: 6 a matrix parameter and token, and 12 dh H a visible (query, key)
// pair and layer (there is no relative term: forward 4, backward 8).
#define TESTING
#include "train_gpt2.c"

static int compare(const void* a, const void* b) {
  double x = *(const double*)a, y = *(const double*)b;
  return (x > y) - (x < y);
}

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

int main(int argc, char** argv) {
  if (argc != 4) return fprintf(stderr, "usage: llmc LANES TOKENS STEPS\n"), 2;
  int lanes = atoi(argv[1]), tokens = atoi(argv[2]), steps = atoi(argv[3]);
  GPT2 model = {0};
  model.config = (GPT2Config){.max_seq_len = 1024, .vocab_size = 50257, .padded_vocab_size = 50304, .num_layers = 12,
                              .num_heads = 12, .channels = 768};
  fill_in_parameter_sizes(model.param_sizes, model.config);
  for (int i = 0; i < NUM_PARAMETER_TENSORS; i++) model.num_parameters += model.param_sizes[i];
  model.params_memory = malloc_and_point_parameters(&model.params, model.param_sizes);
  uint32_t state = 1;
  for (size_t i = 0; i < model.num_parameters; i++) {
    state = state * 1664525u + 1013904223u;
    model.params_memory[i] = 0.04f * ((state >> 8) / 16777216.0f - 0.5f);
  }
  model.mean_loss = -1.0f;

  int count = lanes * tokens;
  int* inputs = malloc(count * sizeof(int));
  int* targets = malloc(count * sizeof(int));
  for (int i = 0; i < count; i++) inputs[i] = (i * 7919) % 50257, targets[i] = (i * 7919 + 1) % 50257;
  double* times = malloc(steps * sizeof(double));
  for (int s = -1; s < steps; s++) {
    double start = seconds();
    gpt2_forward(&model, inputs, targets, lanes, tokens);
    gpt2_zero_grad(&model);
    gpt2_backward(&model);
    gpt2_update(&model, 1e-4f, 0.9f, 0.999f, 1e-8f, 0.0f, s + 2);
    if (s >= 0) times[s] = seconds() - start;
  }
  qsort(times, steps, sizeof(double), compare);
  double median = times[steps / 2], width = 768, layers = 12;
  double matrices = 50304 * width + layers * 12 * width * width;
  double flops = count * (6 * matrices + 12 * width * layers * (tokens + 1) / 2.0);
  printf("{\"peer\": \"llm.c\", \"lanes\": %d, \"tokens\": %d, \"ms\": %.1f, \"tokens_per_s\": %.1f, \"gflops\": %.1f}\n", lanes,
         tokens, median * 1e3, count / median, flops / median / 1e9);
}
