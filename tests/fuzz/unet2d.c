/* config.json of a UNet2DModel through the builder; the graph it makes gets shapes at its own and other sizes. */
#include "fuzz.h"

#include "base/json.h"
#include "import/unet2d.h"

static void shapes(const bb_graph *g, uint32_t height, uint32_t width)
{
    bb_error err = {0};
    bb_bindings bind = {{1, 1, height, width, 1, 1}};
    bb_shape *s = fuzz_block(g->n_values * sizeof *s);
    fuzz_check_error(bb_graph_shapes(g, &bind, s, &err), &err);
    free(s);
}

FUZZ_TARGET(unet2d)
{
    bb_json j;
    bb_error err = {0};
    bb_builder b;
    bb_unet2d_facts facts = {0};
    size_t bytes = bb_json_scratch(n);
    void *scratch = fuzz_block(bytes);
    bb_status status = BB_ERR_CORRUPT;
    if (bb_json_parse(&j, (const char *)data, n, scratch, bytes) && bb_json_is_object(&j, 0)) {
        bb_config c = bb_config_init(&j, 0, "config.json", "UNet2DModel", &err);
        bb_builder_init(&b, "denoiser", &err);
        status = bb_unet2d_build(&b, &c, &facts);
        if (status >= 0) status = bb_builder_finish(&b);
        fuzz_check_error(status, &err);
        if (status == BB_OK) {
            FUZZ_CHECK(facts.width && facts.height && facts.channels && facts.out_channels);
            shapes(&b.graph, facts.height, facts.width);
            shapes(&b.graph, 1, 65536);
        }
        bb_builder_free(&b);
    }
    free(scratch);
    return status;
}
