/* UNet2DModel of diffusers (0.27): the U-Net of "Denoising Diffusion Probabilistic Models" (Ho et al., 2020) with the
 * scale-shift time embedding of "Improved DDPM" (Nichol, Dhariwal, 2021) and the resampling inside resnets of
 * "Diffusion Models Beat GANs on Image Synthesis" (Dhariwal, Nichol, 2021) as choices. `act` below is silu, or what
 * act_fn says.
 *
 *     e = linear(silu(linear(sin/cos of t))) (+ class row, or the same of the class number)
 *     x = conv_in(sample)
 *     down blocks: resnets (each followed by attention in Attn blocks), then halve (strided convolution, or a resnet
 *                  that averages 2×2 pixels after its first act); every result is kept as a skip
 *     middle:      resnet, attention, resnet
 *     up blocks:   one resnet more than down; each first concatenates the newest skip; then double in the same two ways
 *     out = conv_out(silu(norm(x)))
 *
 * Function names are those of the modules. What the config says and this file does not do is refused by name. Names of
 * fields and blocks from before diffusers 0.1 are understood too (its script change_naming_configs_and_checkpoints). */
#include "import/unet2d.h"

#include <math.h>
#include <string.h>

#define MAX_BLOCKS 8
#define MAX_LAYERS 8
#define MAX_PICTURE_CHANNELS 64u /* the packed file's limit (core/FORMAT.md) */
#define MAX_SKIPS (1 + MAX_BLOCKS * (MAX_LAYERS + 1))

enum { PLAIN, ATTENTION, RESAMPLING }; /* kinds of blocks */
enum { CLASS_NONE, CLASS_ROWS, CLASS_TIMESTEP };
enum { KEEP_SIZE, HALVE, DOUBLE };     /* what a resnet does between its first act and conv1 */

typedef struct unet {
    uint32_t height, width, in_channels, out_channels, classes;
    uint32_t blocks, channels[MAX_BLOCKS], layers;
    uint32_t down[MAX_BLOCKS], up[MAX_BLOCKS]; /* kind of block */
    uint32_t act, class_embedding;
    uint32_t groups, attention_groups; /* attention_groups: of the middle one; 0 = no norm there */
    uint32_t head_width;               /* 0: one head of full width */
    float eps, middle_scale, freq_shift;
    bool middle_attention, scale_shift, cos_first, pad_both_sides, center;
    bool down_resnet, up_resnet; /* how Attn blocks resample */
} unet;

static const bb_pads no_pads = {0, 0, 0, 0}, same = {1, 1, 1, 1};

/* ---- config.json ---- */

static const char *const old_fields[][2] = {
    {"sample_size", "image_size"}, {"layers_per_block", "num_res_blocks"}, {"block_out_channels", "block_channels"},
    {"down_block_types", "down_blocks"}, {"up_block_types", "up_blocks"}, {"freq_shift", "downscale_freq_shift"},
    {"norm_num_groups", "resnet_num_groups"}, {"act_fn", "resnet_act_fn"}, {"norm_eps", "resnet_eps"},
    {"attention_head_dim", "num_head_channels"}, {NULL, NULL},
};

/* A number or [height, width]. */
static void read_size(unet *u, bb_config *c)
{
    uint32_t size[2] = {0, 0}, n = 1;
    if (bb_json_is_array(c->json, bb_config_find(c, "sample_size"))) {
        n = bb_config_numbers(c, "sample_size", size, 2);
    } else {
        size[0] = bb_config_u32(c, "sample_size", 0, 1, 4096);
    }
    u->height = size[0];
    u->width = n == 2 ? size[1] : size[0];
    uint32_t multiple = 1u << (u->blocks ? u->blocks - 1 : 0);
    if (!u->height || !u->width) {
        bb_config_refuse(c, "sample_size", "is missing: give the picture's size in pixels");
    } else if (u->height % multiple || u->width % multiple) {
        char what[96];
        bb_format(what, sizeof what, "must be a multiple of %u pixels, one halving per block but the last", multiple);
        bb_config_refuse(c, "sample_size", what);
    }
}

static void read_blocks(unet *u, bb_config *c)
{
    static const char *const down[] = {"DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D",
                                       "UNetResDownBlock2D", "UNetResAttnDownBlock2D", NULL};
    static const char *const up[] = {"UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D",
                                     "UNetResUpBlock2D", "UNetResAttnUpBlock2D", NULL};
    u->blocks = bb_config_numbers(c, "block_out_channels", u->channels, MAX_BLOCKS);
    if (bb_config_choices(c, "down_block_types", down, u->down, MAX_BLOCKS) != u->blocks) {
        bb_config_refuse(c, "down_block_types", "must have as many entries as block_out_channels");
    }
    if (bb_config_choices(c, "up_block_types", up, u->up, MAX_BLOCKS) != u->blocks) {
        bb_config_refuse(c, "up_block_types", "must have as many entries as block_out_channels");
    }
    for (uint32_t i = 0; i < u->blocks; i++) {
        u->down[i] %= 3; /* the last two names of each list are older ones of the first two */
        u->up[i] %= 3;
    }
    u->layers = bb_config_u32(c, "layers_per_block", 2, 1, MAX_LAYERS);
}

static void read_classes(unet *u, bb_config *c)
{
    static const char *const types[] = {"timestep", NULL};
    u->classes = bb_config_u32(c, "num_class_embeds", 0, 1, 65536);
    u->class_embedding = u->classes ? CLASS_ROWS : CLASS_NONE;
    if (bb_config_token(c, "class_embed_type") == BB_JSON_NONE) return;
    bb_config_choice(c, "class_embed_type", types);
    u->class_embedding = CLASS_TIMESTEP; /* any number is a class then, so the weights do not say how many there are */
    if (!u->classes) bb_config_refuse(c, "num_class_embeds", "is missing: give the number of classes");
}

static void read_config(unet *u, bb_config *c)
{
    static const char *const only_positional[] = {"positional", NULL}, *const middles[] = {"UNetMidBlock2D", NULL};
    static const char *const time_shifts[] = {"default", "scale_shift", NULL};
    static const char *const resamplings[] = {"conv", "resnet", NULL};
    static const char *const acts[] = {"silu", "swish", "gelu", "mish", NULL};
    static const uint32_t act_ops[] = {BB_OP_SILU, BB_OP_SILU, BB_OP_GELU, BB_OP_MISH};
    read_blocks(u, c);
    read_size(u, c);
    u->in_channels = bb_config_u32(c, "in_channels", 3, 1, MAX_PICTURE_CHANNELS);
    u->out_channels = bb_config_u32(c, "out_channels", 3, 1, 2 * MAX_PICTURE_CHANNELS);
    u->center = bb_config_bool(c, "center_input_sample", false);
    bb_config_choice(c, "time_embedding_type", only_positional);
    u->freq_shift = (float)bb_config_number(c, "freq_shift", 0);
    u->cos_first = bb_config_bool(c, "flip_sin_to_cos", true);
    u->middle_scale = (float)bb_config_number(c, "mid_block_scale_factor", 1);
    u->pad_both_sides = bb_config_u32(c, "downsample_padding", 1, 0, 1);
    u->down_resnet = bb_config_choice(c, "downsample_type", resamplings);
    u->up_resnet = bb_config_choice(c, "upsample_type", resamplings);
    u->act = act_ops[bb_config_choice(c, "act_fn", acts)];
    bb_config_choice(c, "mid_block_type", middles); /* diffusers 0.29 and later write it */
    bool has_head = bb_config_find(c, "attention_head_dim") != BB_JSON_NONE;
    u->head_width = bb_config_u32(c, "attention_head_dim", has_head ? 0 : 8, 1, 65536); /* null: 0; absent: 8 */
    u->groups = bb_config_u32(c, "norm_num_groups", 32, 1, 65536);
    u->eps = (float)bb_config_number(c, "norm_eps", 1e-5);
    u->scale_shift = bb_config_choice(c, "resnet_time_scale_shift", time_shifts) == 1;
    u->attention_groups = bb_config_u32(c, "attn_norm_num_groups", u->scale_shift ? 0 : u->groups, 1, 65536);
    u->middle_attention = bb_config_bool(c, "add_attention", true);
    read_classes(u, c);
    static const char *const of_training[] = {"dropout", "decay", "min_decay", "optimization_step", "update_after_step",
                                              "use_ema_warmup", "inv_gamma", "power"}; /* all but the first: EMAModel */
    for (size_t i = 0; i < BB_COUNT(of_training); i++) bb_config_ignore(c, of_training[i]);
    bb_config_ignore(c, "num_train_timesteps"); /* of a time_embedding_type that is refused above */
    if (!(u->middle_scale > 0)) bb_config_refuse(c, "mid_block_scale_factor", "must be above 0");
    if (!(u->freq_shift >= 0) || u->freq_shift >= (float)(u->channels[0] / 2)) {
        bb_config_refuse(c, "freq_shift", "must be at least 0 and below half of block_out_channels[0]");
    }
    if (u->channels[0] % 2) bb_config_refuse(c, "block_out_channels", "must begin with an even number");
}

/* ---- the network ---- */

/* e^(−ln 10000·k / (half − freq_shift)), every step rounded to f32 as torch does: timesteps up to 1000 magnify an
 * error of the frequency a thousandfold. */
static void frequencies(float *out, uint32_t half, float freq_shift)
{
    const float top = (float)-log(10000.0);
    for (uint32_t k = 0; k < half; k++) {
        float exponent = top * (float)k;
        exponent = exponent / ((float)half - freq_shift);
        out[k] = (float)exp((double)exponent);
    }
}

static uint32_t act(bb_builder *b, const unet *u, uint32_t x) { return bb_build_activation(b, u->act, x); }

/* Two linears over the sines and cosines of a number; its silu does not follow act_fn, nor does the last of the net. */
static uint32_t timestep_mlp(bb_builder *b, const unet *u, uint32_t number, const char *projection, const char *name)
{
    float f[65536 / 2]; /* read_config bounds the channels */
    uint32_t half = u->channels[0] / 2, width = 4 * u->channels[0];
    frequencies(f, half, u->freq_shift);
    uint32_t e = bb_build_timestep_embedding(b, number, projection, f, half, u->cos_first);
    bb_build_enter(b, "%s", name);
    e = bb_build_silu(b, bb_build_linear(b, e, "linear_1", width));
    return bb_build_leave(b, bb_build_linear(b, e, "linear_2", width));
}

/* The embedding of timestep and class, after the activation that every resnet would apply to it first. */
static uint32_t embedding(bb_builder *b, const unet *u, uint32_t timestep, uint32_t labels)
{
    uint32_t width = 4 * u->channels[0], e = timestep_mlp(b, u, timestep, "time_proj", "time_embedding");
    if (u->class_embedding == CLASS_ROWS) {
        e = bb_build_add(b, e, bb_build_embedding(b, labels, "class_embedding", u->classes, width));
    } else if (u->class_embedding == CLASS_TIMESTEP) {
        e = bb_build_add(b, e, timestep_mlp(b, u, labels, "class_proj", "class_embedding"));
    }
    return act(b, u, e);
}

static uint32_t resampled(bb_builder *b, uint32_t size, uint32_t x)
{
    return size == HALVE ? bb_build_avg_pool2d(b, x, 2) : size == DOUBLE ? bb_build_upsample(b, x, 2) : x;
}

static uint32_t resnet(bb_builder *b, const unet *u, const char *name, uint32_t number, uint32_t x, uint32_t e,
                       uint32_t out, float divisor, uint32_t size)
{
    bb_build_enter(b, "%s.%u", name, number);
    uint32_t h = act(b, u, bb_build_group_norm(b, x, "norm1", u->groups, u->eps));
    x = resampled(b, size, x);
    h = bb_build_conv2d(b, resampled(b, size, h), "conv1", out, 3, 1, same);
    uint32_t t = bb_build_linear(b, e, "time_emb_proj", u->scale_shift ? 2 * out : out);
    if (u->scale_shift) {
        h = bb_build_group_norm(b, h, "norm2", u->groups, u->eps);
        h = bb_build_modulate(b, h, bb_build_slice(b, t, 0, out), bb_build_slice(b, t, out, out));
    } else {
        h = bb_build_group_norm(b, bb_build_add(b, h, t), "norm2", u->groups, u->eps);
    }
    h = bb_build_conv2d(b, act(b, u, h), "conv2", out, 3, 1, same);
    if (bb_build_channels(b, x) != out) x = bb_build_conv2d(b, x, "conv_shortcut", out, 1, 1, no_pads);
    uint32_t y = bb_build_add(b, x, h);
    if (divisor != 1) y = bb_build_affine(b, y, 1 / divisor, 0);
    return bb_build_leave(b, y);
}

/* Self-attention over all pixels with a residual. groups 0: no norm. */
static uint32_t attention(bb_builder *b, const unet *u, uint32_t number, uint32_t x, uint32_t groups, float divisor)
{
    uint32_t c = bb_build_channels(b, x), head = u->head_width ? u->head_width : c, heads = c / head;
    bb_build_enter(b, "attentions.%u", number);
    if (!heads) bb_build_refuse(b, BB_ERR_UNSUPPORTED, "attention_head_dim is larger than the block's channels");
    uint32_t inner = heads * head;
    uint32_t h = groups ? bb_build_group_norm(b, x, "group_norm", groups, u->eps) : x;
    uint32_t q = bb_build_linear(b, h, "to_q", inner);
    uint32_t k = bb_build_linear(b, h, "to_k", inner);
    uint32_t v = bb_build_linear(b, h, "to_v", inner);
    h = bb_build_attention(b, q, k, v, heads, (float)(1 / sqrt((double)head)));
    h = bb_build_linear(b, h, "to_out.0", c);
    uint32_t y = bb_build_add(b, h, x);
    if (divisor != 1) y = bb_build_affine(b, y, 1 / divisor, 0);
    return bb_build_leave(b, y);
}

typedef struct skips {
    uint32_t of[MAX_SKIPS], n;
} skips;

static uint32_t downsampler(bb_builder *b, const unet *u, uint32_t i, uint32_t x, uint32_t e)
{
    if (u->down[i] == RESAMPLING || (u->down[i] == ATTENTION && u->down_resnet)) {
        return resnet(b, u, "downsamplers", 0, x, e, u->channels[i], 1, HALVE);
    }
    bb_pads pads = u->pad_both_sides ? same : (bb_pads){.bottom = 1, .right = 1};
    bb_build_enter(b, "downsamplers.0");
    return bb_build_leave(b, bb_build_conv2d(b, x, "conv", u->channels[i], 3, 2, pads));
}

static uint32_t down_block(bb_builder *b, const unet *u, uint32_t i, uint32_t x, uint32_t e, skips *s)
{
    bb_build_enter(b, "down_blocks.%u", i);
    for (uint32_t l = 0; l < u->layers; l++) {
        x = resnet(b, u, "resnets", l, x, e, u->channels[i], 1, KEEP_SIZE);
        if (u->down[i] == ATTENTION) x = attention(b, u, l, x, u->groups, 1);
        s->of[s->n++] = x;
    }
    if (i + 1 < u->blocks) {
        x = downsampler(b, u, i, x, e);
        s->of[s->n++] = x;
    }
    return bb_build_leave(b, x);
}

static uint32_t mid_block(bb_builder *b, const unet *u, uint32_t x, uint32_t e)
{
    uint32_t c = u->channels[u->blocks - 1];
    bb_build_enter(b, "mid_block");
    x = resnet(b, u, "resnets", 0, x, e, c, u->middle_scale, KEEP_SIZE);
    if (u->middle_attention) x = attention(b, u, 0, x, u->attention_groups, u->middle_scale);
    return bb_build_leave(b, resnet(b, u, "resnets", 1, x, e, c, u->middle_scale, KEEP_SIZE));
}

static uint32_t upsampler(bb_builder *b, const unet *u, uint32_t i, uint32_t x, uint32_t e)
{
    uint32_t c = bb_build_channels(b, x);
    if (u->up[i] == RESAMPLING || (u->up[i] == ATTENTION && u->up_resnet)) {
        return resnet(b, u, "upsamplers", 0, x, e, c, 1, DOUBLE);
    }
    bb_build_enter(b, "upsamplers.0");
    return bb_build_leave(b, bb_build_conv2d(b, bb_build_upsample(b, x, 2), "conv", c, 3, 1, same));
}

static uint32_t up_block(bb_builder *b, const unet *u, uint32_t i, uint32_t x, uint32_t e, skips *s)
{
    uint32_t c = u->channels[u->blocks - 1 - i];
    bb_build_enter(b, "up_blocks.%u", i);
    for (uint32_t l = 0; l < u->layers + 1; l++) {
        x = bb_build_concat(b, x, s->of[--s->n]);
        x = resnet(b, u, "resnets", l, x, e, c, 1, KEEP_SIZE);
        if (u->up[i] == ATTENTION) x = attention(b, u, l, x, u->groups, 1);
    }
    if (i + 1 < u->blocks) x = upsampler(b, u, i, x, e);
    return bb_build_leave(b, x);
}

static void network(bb_builder *b, const unet *u)
{
    bb_dim one = bb_dim_of(1), items = bb_dim_symbol(BB_DIM_B);
    uint32_t x = bb_build_input(b, "sample", BB_RATE_SAMPLE, items, bb_dim_symbol(BB_DIM_H), bb_dim_symbol(BB_DIM_W),
                                u->in_channels);
    uint32_t timestep = bb_build_input(b, "timestep", BB_RATE_STEP, items, one, one, 1), labels = BB_NONE;
    if (u->classes) labels = bb_build_input(b, "class_labels", BB_RATE_PROMPT, items, one, one, 1);

    uint32_t e = embedding(b, u, timestep, labels);
    if (u->center) x = bb_build_affine(b, x, 2, -1);
    x = bb_build_conv2d(b, x, "conv_in", u->channels[0], 3, 1, same);
    skips s = {.of = {x}, .n = 1};
    for (uint32_t i = 0; i < u->blocks; i++) x = down_block(b, u, i, x, e, &s);
    x = mid_block(b, u, x, e);
    for (uint32_t i = 0; i < u->blocks; i++) x = up_block(b, u, i, x, e, &s);
    x = bb_build_group_norm(b, x, "conv_norm_out", u->groups, u->eps);
    x = bb_build_conv2d(b, bb_build_silu(b, x), "conv_out", u->out_channels, 3, 1, same);
    bb_build_output(b, "sample", x);
}

bb_status bb_unet2d_build(bb_builder *b, bb_config *c, bb_unet2d_facts *facts)
{
    unet u = {0};
    c->aliases = old_fields;
    read_config(&u, c);
    BB_TRY(bb_config_finish(c));
    network(b, &u);
    *facts = (bb_unet2d_facts){.width = u.width, .height = u.height, .channels = u.in_channels,
                               .out_channels = u.out_channels, .classes = u.classes};
    return b->status;
}
