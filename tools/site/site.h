/* bitbrush site: the parts of one run. models.c opens and checks the models, old.c the folder that is there, pictures.c
 * draws, list.c writes site.json, files.c puts everything in its place. */
#ifndef BB_TOOLS_SITE_SITE_H
#define BB_TOOLS_SITE_SITE_H

#include "host.h"

enum {
    BB_SITE_MODELS = 64,
    BB_SITE_NAME = 100,    /* characters of a model's name */
    BB_SITE_CLASSES = 64,  /* above it there are no class pictures */
    BB_SITE_PARTS = 1000,  /* of one model: three digits */
};

typedef struct bb_site_model {
    bb_host host;
    const char *path;            /* as given */
    char name[BB_SITE_NAME + 1]; /* safe in a file name and a URL */
    char sha256[65], group[17];  /* of the file; of its teacher, "" if unknown */
    uint32_t artist;             /* the model that drew its class pictures, BB_NONE without any */
} bb_site_model;

/* A file to be: data is lent by the model, or belongs to it as a map or heap block. */
typedef struct bb_site_file {
    char *name; /* relative to the site's folder */
    const uint8_t *data;
    size_t n;
    bb_file map;
    void *heap;
} bb_site_file;

/* The site.json that is there. */
typedef struct bb_site_old {
    bb_file file;
    void *tokens;
    bb_json json; /* empty if there is none */
    bool unfinished; /* there is none, but what is there is a killed run's */
    char **doomed; uint32_t n_doomed; /* paths of files that the new site has no use for */
} bb_site_old;

typedef struct bb_site {
    const char *title, *page, *out;
    uint64_t split; /* bytes of a part; models of more are split; 0 = never */
    bool isolate, no_pictures, json_report, quiet;
    bb_host_options host_options;
    char page_folder[4096];
    bb_site_model models[BB_SITE_MODELS];
    uint32_t n_models;
    bb_site_old old;
    bb_site_file *files;
    uint32_t n_files, room;
    uint32_t written, removed, drawn; /* files, files, strips */
} bb_site;

/* Opens and checks a model, and gives it the name of its file. */
bb_status bb_site_add_model(bb_site *s, const char *path, bb_error *err);
bool bb_site_is_split(const bb_site *s, const bb_site_model *m);
/* Bytes of the part that begins at this byte of a split model. */
size_t bb_site_part(const bb_site *s, const bb_site_model *m, size_t at);
/* "W4A8", "f16", "4.2 bit"; cut to size. */
void bb_site_bits(const bb_site_model *m, char *out, size_t size);

/* Reads what is there. A folder that holds something, but no site of ours, is refused. */
bb_status bb_site_old_read(bb_site *s, bb_error *err);
/* Before a folder becomes a site: none of the hidden files that it may hold is one of the files to be. */
bb_status bb_site_old_check_hidden(const bb_site *s, bb_error *err);
/* Whether the site has the strip that this model would draw. */
bool bb_site_old_has_strip(const bb_site *s, const bb_site_model *m);
/* Finds the files of models that site.json listed and that are none of the files to be; sweep removes them, and what
 * killed runs left of these files. */
bb_status bb_site_old_doom(bb_site *s, bb_error *err);
void bb_site_old_sweep(bb_site *s);
void bb_site_old_close(bb_site_old *old);

/* Who draws whose class pictures; then the pictures, drawn or taken from the site that is there. */
void bb_site_choose_artists(bb_site *s);
bb_status bb_site_add_pictures(bb_site *s, bb_error *err);

/* Adds site.json, which must be the first file: it is in its place only when all the others are. */
bb_status bb_site_add_list(bb_site *s, bb_error *err);
/* Adds the .parts.json of a split model. */
bb_status bb_site_add_parts_list(bb_site *s, const bb_site_model *m, bb_error *err);

/* Adds a file; map (may be NULL) and heap (may be NULL) are the list's from now on, also after a failure. */
bb_status bb_site_add_file(bb_site *s, const char *name, const uint8_t *data, size_t n, bb_file *map, void *heap,
                           bb_error *err);
/* The file of that name to be, or NULL. */
const bb_site_file *bb_site_file_named(const bb_site *s, const char *name);
/* The page's folder: s->page, or the default one, which may not be there. */
bb_status bb_site_find_page(bb_site *s, bb_error *err);
bb_status bb_site_add_page(bb_site *s, bb_error *err);
/* The models, whole or in parts. */
bb_status bb_site_add_models(bb_site *s, bb_error *err);
/* Writes all files under temporary names, renames them, and removes what is dropped or a killed run has left. */
bb_status bb_site_write(bb_site *s, bb_error *err);
void bb_site_close(bb_site *s);

#endif
