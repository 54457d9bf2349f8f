/* JSON files of a checkpoint, and reading configuration fields out of them by name.
 *
 * A bb_config remembers which fields were asked for; bb_config_finish refuses whatever else is set, so a field that
 * changes the network and is not understood can never be passed over in silence. The first failure sticks: later reads
 * return their fallback, so builders read a whole configuration without a test per line. */
#ifndef BB_TOOLS_IMPORT_CONFIG_H
#define BB_TOOLS_IMPORT_CONFIG_H

#include "base/json.h"
#include "io.h"

typedef struct bb_json_file {
    bb_file file;
    void *tokens;
    bb_json json;
} bb_json_file;

/* The root must be an object; -Infinity outside of strings counts as null. On failure nothing needs closing. */
bb_status bb_json_file_open(bb_json_file *f, const char *path, bb_error *err);
void bb_json_file_close(bb_json_file *f);

#define BB_CONFIG_FIELDS 64

typedef struct bb_config {
    const bb_json *json;
    uint32_t object;  /* token */
    const char *file; /* for messages */
    const char *what; /* what the fields belong to, for messages: "UNet2DModel" */
    bb_error *err;
    bb_status status;
    const char *const (*aliases)[2]; /* {name, older name} …, ended by NULL; or NULL */
    const char *seen[BB_CONFIG_FIELDS];
    uint32_t n_seen;
} bb_config;

bb_config bb_config_init(const bb_json *json, uint32_t object, const char *file, const char *what, bb_error *err);

/* A field is looked up by its name, then by its older one if there is an alias. */

/* The field's token, be it null, or BB_JSON_NONE. Does not mark it as seen. */
uint32_t bb_config_find(const bb_config *c, const char *name);
/* Token of the field, marked as seen; BB_JSON_NONE if it is absent or null. */
uint32_t bb_config_token(bb_config *c, const char *name);

/* Absent or null gives the fallback. */
uint32_t bb_config_u32(bb_config *c, const char *name, uint32_t fallback, uint32_t min, uint32_t max);
double bb_config_number(bb_config *c, const char *name, double fallback);
bool bb_config_bool(bb_config *c, const char *name, bool fallback);
/* Index of the field's value among the choices (NULL-terminated); the first is the fallback. */
uint32_t bb_config_choice(bb_config *c, const char *name, const char *const *choices);
/* A list of 1..max strings of the choices (their indices) or of numbers ≥ 1; returns its length. Required. */
uint32_t bb_config_choices(bb_config *c, const char *name, const char *const *choices, uint32_t *out, uint32_t max);
uint32_t bb_config_numbers(bb_config *c, const char *name, uint32_t *out, uint32_t max);
/* A field without effect on the result. */
void bb_config_ignore(bb_config *c, const char *name);

/* Records a failure of the field: "FILE: NAME WHAT". */
void bb_config_refuse(bb_config *c, const char *name, const char *what);

/* Refuses fields never asked for, unless they start with '_' or hold null or false. Returns the sticky status. */
bb_status bb_config_finish(bb_config *c);

#endif
