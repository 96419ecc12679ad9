#ifndef SCENE_H
#define SCENE_H

/* Linear light, red green blue. */
typedef struct {
    double x, y, z;
} Vec;

/* The light that reaches the camera through a point of the picture plane. u grows to the right, v
 * upwards; the picture's height spans -1..1 and its width the same scale. */
Vec scene_light(double u, double v);

/* From linear light to the 8-bit value to display, 0..255. */
unsigned char scene_display(double light);

#endif
