/* Builder of diffusers' UNet2DModel: an unconditional or class-conditional U-Net on pixels. */
#ifndef BB_TOOLS_IMPORT_UNET2D_H
#define BB_TOOLS_IMPORT_UNET2D_H

#include "import/builder.h"
#include "import/config.h"

/* What the file's header says about the picture. */
typedef struct bb_unet2d_facts {
    uint32_t width, height, channels, out_channels;
    uint32_t classes; /* 0 = unconditional */
} bb_unet2d_facts;

/* Reads config.json and builds the whole graph, named "denoiser". Inputs: sample [B,H,W,channels], timestep [B],
 * class_labels [B] if there are classes; output: sample. The caller finishes (bb_builder_finish). */
bb_status bb_unet2d_build(bb_builder *b, bb_config *c, bb_unet2d_facts *facts);

#endif
