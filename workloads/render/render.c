/* Renders one tile of a picture: raw RGB rows on standard output. README.md has the arguments. */
#include "scene.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { BAD_ARGUMENTS = 2, MAX_SIDE = 16384, MAX_DETAIL = 8 };

/* The decimal number in text, or exit: a number is what we can render by, or the job is wrong. */
static long number(const char *name, const char *text, long least, long most) {
    char *end = NULL;
    errno = 0;
    long value = text && *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : 0;
    if (!end || *end || errno || value < least || value > most) {
        fprintf(stderr, "render: %s must be a whole number from %ld to %ld, got '%s'\n", name,
                least, most, text ? text : "");
        exit(BAD_ARGUMENTS);
    }
    return value;
}

static void require_division(const char *side, long pixels, const char *parts, long count) {
    if (pixels % count) {
        fprintf(stderr, "render: %s %ld is not divisible by %s %ld\n", side, pixels, parts, count);
        exit(BAD_ARGUMENTS);
    }
}

/* One pixel: the mean light of detail x detail points in it. It depends on its place in the
 * picture alone, so tiles of any geometry fit together without a seam. */
static void render_pixel(long x, long y, long width, long height, long detail, unsigned char *rgb) {
    Vec sum = {0.0, 0.0, 0.0};
    for (long j = 0; j < detail; j++) {
        for (long i = 0; i < detail; i++) {
            double right = (double)x + ((double)i + 0.5) / (double)detail;
            double down = (double)y + ((double)j + 0.5) / (double)detail;
            Vec light = scene_light((2.0 * right - (double)width) / (double)height,
                                    1.0 - 2.0 * down / (double)height);
            sum.x += light.x, sum.y += light.y, sum.z += light.z;
        }
    }
    double share = 1.0 / (double)(detail * detail);
    rgb[0] = scene_display(sum.x * share);
    rgb[1] = scene_display(sum.y * share);
    rgb[2] = scene_display(sum.z * share);
}

int main(int argc, char **argv) {
    if (argc < 5 || argc > 6) {
        fprintf(stderr, "usage: render width height columns rows [detail]\n");
        return BAD_ARGUMENTS;
    }
    long width = number("width", argv[1], 1, MAX_SIDE);
    long height = number("height", argv[2], 1, MAX_SIDE);
    long columns = number("columns", argv[3], 1, width);
    long rows = number("rows", argv[4], 1, height);
    long detail = argc == 6 ? number("detail", argv[5], 1, MAX_DETAIL) : 1;
    require_division("width", width, "columns", columns);
    require_division("height", height, "rows", rows);
    long task = number("LENDER_TASK", getenv("LENDER_TASK"), 0, columns * rows - 1);

    long tile_width = width / columns, tile_height = height / rows;
    long left = task % columns * tile_width, top = task / columns * tile_height;
    static unsigned char line[MAX_SIDE * 3];
    for (long y = top; y < top + tile_height; y++) {
        for (long x = 0; x < tile_width; x++) {
            render_pixel(left + x, y, width, height, detail, line + 3 * x);
        }
        if (fwrite(line, 3, (size_t)tile_width, stdout) != (size_t)tile_width) break;
    }
    if (fflush(stdout) || ferror(stdout)) {
        perror("render: writing the tile");
        return EXIT_FAILURE;
    }
    return EXIT_SUCCESS;
}
