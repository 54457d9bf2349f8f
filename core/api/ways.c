/* What a host sees of kernels/dots.h: names, a trial of each way, and the times that came out. */
#include "api/model.h"

_Static_assert(BB_WAY_TRIAL == BB_DOT_TRIAL_BYTES, "the same scratch");

const char *bb_way_name(uint32_t way)
{
    bb_kernels k;
    bb_kernels_select(&k, bb_cpu_features());
    return way < BB_DOTS && k.dots[way] ? k.dots[way]->name : NULL;
}

double bb_way_trial(uint32_t way, uint32_t rounds, void *scratch)
{
    bb_kernels k;
    bb_kernels_select(&k, bb_cpu_features());
    return bb_dot_trial(&k, way, rounds, scratch);
}

/* Costs stay in the unit in which the ways state their usual ones, because other costs are in it, too: the median over
 * the ways, so that one way that is out of the ordinary here does not move it. */
void bb_model_way_times(bb_model *m, const float *times)
{
    bb_kernels *k = &m->kernels;
    float units[BB_DOTS]; /* ascending */
    uint32_t ways = 0;
    for (; ways < BB_DOTS && k->dots[ways]; ways++) {
        const float unit = k->dots[ways]->cost / times[ways];
        uint32_t at = ways;
        for (; at > 0 && units[at - 1] > unit; at--) units[at] = units[at - 1];
        units[at] = unit;
    }
    for (uint32_t i = 0; i < ways; i++) k->cost[i] = times[i] * units[ways / 2];
}
