// Logits of a GGUF model by llama.cpp in float32, for golden files: see make_family_logits.py.
//
// dump_logits MODEL ID... writes float32 [n, n_vocab] to the standard output.
//
// One thread, float32 keys and values, no flash attention: the plainest computation it has.

#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llama.h"

int main(int argc, char ** argv) {
    llama_log_set([](ggml_log_level level, const char * text, void *) {
        if (level == GGML_LOG_LEVEL_ERROR) {
            std::fputs(text, stderr);
        }
    }, nullptr);
    std::vector<llama_token> tokens;
    for (int i = 2; i < argc; i++) {
        tokens.push_back(std::atoi(argv[i]));
    }
    llama_model * model = argc > 2 ? llama_model_load_from_file(argv[1], llama_model_default_params()) : nullptr;
    if (!model) {
        return 1;
    }
    llama_context_params params = llama_context_default_params();
    params.n_threads = params.n_threads_batch = 1;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.n_ctx = 0;
    llama_context * context = llama_init_from_model(model, params);
    llama_batch batch = llama_batch_init(int(tokens.size()), 0, 1);
    for (size_t i = 0; i < tokens.size(); i++) {
        batch.token[i] = tokens[i];
        batch.pos[i] = llama_pos(i);
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = true;
    }
    batch.n_tokens = int(tokens.size());
    if (!context || llama_decode(context, batch) != 0) {
        return 1;
    }
    const int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (size_t i = 0; i < tokens.size(); i++) {
        std::fwrite(llama_get_logits_ith(context, int(i)), sizeof(float), n_vocab, stdout);
    }
    return 0;
}
