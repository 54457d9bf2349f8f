/* What a command leaves, a file or a folder of them, as one block of bytes to compare. */
#ifndef BB_TESTS_FAULTTREE_H
#define BB_TESTS_FAULTTREE_H

#include "checkpoint.h"

#include <dirent.h>
#include <unistd.h>

typedef struct bytes { uint8_t *data; size_t n; } bytes; /* data NULL: no such file */

static bytes read_whole(const char *path)
{
    bytes b = {NULL, 0};
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    fseek(f, 0, SEEK_END);
    b.n = (size_t)ftell(f);
    rewind(f);
    b.data = malloc(b.n + 1);
    if (fread(b.data, 1, b.n, f) != b.n) abort();
    b.data[b.n] = 0;
    fclose(f);
    return b;
}

static bool is_folder(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void append(bytes *to, const void *data, size_t n)
{
    to->data = realloc(to->data, to->n + n + 1);
    if (n) memcpy(to->data + to->n, data, n);
    to->data[to->n += n] = 0;
}

/* Names, sizes and contents of all files below, in order. */
static void append_tree(bytes *to, const char *path)
{
    struct dirent **names;
    int n = scandir(path, &names, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        char at[512];
        snprintf(at, sizeof at, "%s/%s", path, names[i]->d_name);
        append(to, "/", 1);
        append(to, names[i]->d_name, strlen(names[i]->d_name) + 1);
        if (strcmp(names[i]->d_name, ".") == 0 || strcmp(names[i]->d_name, "..") == 0) {
        } else if (is_folder(at)) {
            append_tree(to, at);
        } else {
            bytes b = read_whole(at);
            append(to, &b.n, sizeof b.n);
            append(to, b.data, b.n);
            free(b.data);
        }
        free(names[i]);
    }
    free(names);
}

/* A file, or a folder with all that is in it. */
static bytes read_tree(const char *path)
{
    bytes b = {NULL, 0};
    if (!is_folder(path)) return read_whole(path);
    append_tree(&b, path);
    return b;
}

static void remove_tree(const char *path)
{
    if (!is_folder(path)) {
        unlink(path);
        return;
    }
    DIR *d = opendir(path);
    for (struct dirent *e; (e = readdir(d));) {
        char at[512];
        snprintf(at, sizeof at, "%s/%s", path, e->d_name);
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) remove_tree(at);
    }
    closedir(d);
    rmdir(path);
}

#endif
