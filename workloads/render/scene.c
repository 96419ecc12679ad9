/* A quaternion Julia set above a polished floor, ray-marched: at every step the ray advances by a
 * lower bound of the distance to the nearest surface.
 *
 * The distance bound |z| log|z| / 2|z'| of an iterated polynomial is from J. C. Hart, D. J. Sandin,
 * L. H. Kauffman: Ray tracing deterministic 3-D fractals, SIGGRAPH 1989. */
#include "scene.h"

#include <math.h>

static const double FLOOR_Y = -0.92;
/* |z| beyond (1 + sqrt(1 + 4|c|)) / 2 grows for ever, so the set lies within this radius. */
static const double BOUND_RADIUS = 1.55;
static const double FAR = 60.0;
static const int ITERATIONS = 11;
static const double JULIA_C[4] = {-0.08, 0.0, -0.83, -0.025};

static const Vec EYE = {1.95, 0.38, -2.95};
static const Vec TARGET = {0.0, -0.30, 0.0};
static const double FOCAL_LENGTH = 2.35; /* in half heights of the picture */

static const Vec SUN = {0.52, 0.62, -0.30}; /* direction to the sun; scaled where it is used */
static const Vec SUN_LIGHT = {3.9, 2.9, 1.9};
static const Vec SKY_LIGHT = {0.42, 0.58, 0.95};
static const Vec BOUNCE_LIGHT = {0.95, 0.48, 0.26}; /* what the ground sends up */

static Vec vec(double x, double y, double z) { return (Vec){x, y, z}; }
static Vec add(Vec a, Vec b) { return vec(a.x + b.x, a.y + b.y, a.z + b.z); }
static Vec sub(Vec a, Vec b) { return vec(a.x - b.x, a.y - b.y, a.z - b.z); }
static Vec scale(Vec a, double s) { return vec(a.x * s, a.y * s, a.z * s); }
static Vec times(Vec a, Vec b) { return vec(a.x * b.x, a.y * b.y, a.z * b.z); }
static double dot(Vec a, Vec b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
static Vec unit(Vec a) { return scale(a, 1.0 / sqrt(dot(a, a))); }
static Vec mix(Vec a, Vec b, double t) { return add(scale(a, 1.0 - t), scale(b, t)); }
static Vec along(Vec from, Vec direction, double distance) {
    return add(from, scale(direction, distance));
}
static Vec cross(Vec a, Vec b) {
    return vec(a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x);
}
static double clamp(double v, double low, double high) { return fmin(fmax(v, low), high); }
static double smoothstep(double from, double to, double v) {
    double t = clamp((v - from) / (to - from), 0.0, 1.0);
    return t * t * (3.0 - 2.0 * t);
}

/* A lower bound of the distance from p to the Julia set. nearest, unless null, is lowered to how
 * close the orbit of p comes to the origin, squared: it colours the surface. */
static double julia_distance(Vec p, double *nearest) {
    double r2 = dot(p, p);
    if (r2 > 1.44 * BOUND_RADIUS * BOUND_RADIUS) return sqrt(r2) - BOUND_RADIUS;
    double a = p.x, b = p.y, c = p.z, d = 0.0; /* z = a + bi + cj + dk */
    double derivative2 = 1.0;                  /* |dz/dp| squared */
    for (int i = 0; i < ITERATIONS && r2 < 64.0; i++) {
        derivative2 *= 4.0 * r2;
        double twice_a = 2.0 * a;
        a = a * a - b * b - c * c - d * d + JULIA_C[0];
        b = twice_a * b + JULIA_C[1];
        c = twice_a * c + JULIA_C[2];
        d = twice_a * d + JULIA_C[3];
        r2 = a * a + b * b + c * c + d * d;
        if (nearest) *nearest = fmin(*nearest, r2);
    }
    return r2 <= 1.0 ? 0.0 : 0.25 * log(r2) * sqrt(r2 / derivative2);
}

static Vec julia_normal(Vec p) {
    const double h = 4e-4;
    Vec gradient = {
        julia_distance(vec(p.x + h, p.y, p.z), 0) - julia_distance(vec(p.x - h, p.y, p.z), 0),
        julia_distance(vec(p.x, p.y + h, p.z), 0) - julia_distance(vec(p.x, p.y - h, p.z), 0),
        julia_distance(vec(p.x, p.y, p.z + h), 0) - julia_distance(vec(p.x, p.y, p.z - h), 0),
    };
    /* Within the set the distance is 0 all around; outwards is then as good as any direction. */
    return unit(add(gradient, scale(p, 1e-9)));
}

/* Distance along the ray to the Julia set, or FAR. */
static double march(Vec from, Vec direction) {
    double t = 0.0;
    for (int i = 0; i < 220 && t < 12.0; i++) {
        double d = julia_distance(along(from, direction, t), 0);
        if (d < 2.5e-4 * (1.0 + t)) return t;
        t += d;
    }
    return FAR;
}

/* The share of the sun that reaches p, 0..1: the nearest miss on the way widens the penumbra. */
static double sunlight(Vec p, Vec sun) {
    double open = 1.0, t = 0.004;
    for (int i = 0; i < 90 && t < 5.0; i++) {
        double d = julia_distance(along(p, sun, t), 0);
        open = fmin(open, 11.0 * d / t);
        if (open < 0.002) return 0.0;
        t += clamp(d, 0.004, 0.12);
    }
    return smoothstep(0.0, 1.0, open);
}

/* The share of the sky that p sees, 0..1, from how fast free space opens along the normal. */
static double openness(Vec p, Vec normal) {
    double closed = 0.0, weight = 1.0;
    for (int i = 1; i <= 6; i++) {
        double reach = 0.012 + 0.025 * i * i;
        Vec q = along(p, normal, reach);
        double d = fmin(julia_distance(q, 0), q.y - FLOOR_Y + 0.02);
        closed += weight * fmax(reach - d, 0.0) / reach;
        weight *= 0.72;
    }
    return clamp(1.0 - 0.46 * closed, 0.0, 1.0);
}

static Vec sky(Vec direction) {
    double toward_sun = fmax(dot(direction, unit(SUN)), 0.0);
    double height = fmax(direction.y, 0.0);
    Vec light = mix(vec(1.25, 0.52, 0.20), vec(0.30, 0.16, 0.30), smoothstep(0.0, 0.26, height));
    light = mix(light, vec(0.02, 0.05, 0.16), smoothstep(0.06, 0.50, height));
    return add(light, scale(SUN_LIGHT, 0.12 * pow(toward_sun, 10.0)));
}

/* From red through gold and teal to ivory, by how close the orbit comes to the origin. */
static Vec julia_colour(Vec p) {
    double nearest = 1e9;
    julia_distance(p, &nearest);
    double t = sqrt(nearest);
    Vec colour = mix(vec(0.80, 0.20, 0.07), vec(0.92, 0.60, 0.26), smoothstep(0.05, 0.35, t));
    colour = mix(colour, vec(0.10, 0.36, 0.42), smoothstep(0.30, 0.62, t));
    return mix(colour, vec(0.92, 0.86, 0.76), smoothstep(0.55, 0.95, t));
}

static Vec shade_julia(Vec p, Vec direction) {
    Vec normal = julia_normal(p), sun = unit(SUN);
    Vec colour = julia_colour(p);

    double facing = fmax(dot(normal, sun), 0.0);
    double lit = facing > 0.0 ? facing * sunlight(along(p, normal, 0.003), sun) : 0.0;
    double open = openness(p, normal);
    Vec light = scale(SUN_LIGHT, lit);
    double up = normal.y;
    light = add(light, scale(SKY_LIGHT, 1.1 * open * (0.55 + 0.45 * up)));
    light = add(light, scale(BOUNCE_LIGHT, (0.25 + 0.9 * open) * (0.5 - 0.5 * up)));
    Vec out = times(colour, light);

    double fresnel = 0.04 + 0.96 * pow(clamp(1.0 + dot(normal, direction), 0.0, 1.0), 5.0);
    Vec half = unit(sub(sun, direction));
    double gloss = pow(fmax(dot(normal, half), 0.0), 60.0);
    Vec mirrored = sub(direction, scale(normal, 2.0 * dot(direction, normal)));
    out = add(out, scale(sky(mirrored), 0.6 * fresnel * open));
    return add(out, scale(SUN_LIGHT, 0.4 * gloss * lit));
}

static Vec shade_floor(Vec p, Vec direction, double distance) {
    Vec sun = unit(SUN), up = vec(0.0, 1.0, 0.0);
    Vec light = scale(SUN_LIGHT, sun.y * sunlight(p, sun));
    light = add(light, scale(SKY_LIGHT, openness(p, up)));
    Vec out = times(vec(0.035, 0.04, 0.055), light);

    /* Rings as on still water tilt the mirror, and fade before they are finer than pixels. */
    double radius = sqrt(p.x * p.x + p.z * p.z) + 1e-9;
    double tilt = 0.022 * sin(16.0 * radius) * exp(-0.35 * radius);
    Vec normal = unit(vec(tilt * p.x / radius, 1.0, tilt * p.z / radius));
    Vec mirrored = sub(direction, scale(normal, 2.0 * dot(direction, normal)));
    double t = march(p, mirrored);
    Vec seen = t < FAR ? shade_julia(along(p, mirrored, t), mirrored) : sky(mirrored);
    double fresnel = 0.22 + 0.70 * pow(clamp(1.0 + dot(direction, normal), 0.0, 1.0), 3.0);
    out = add(scale(out, 1.0 - fresnel), scale(seen, fresnel));
    Vec horizon = sky(unit(vec(direction.x, 0.0, direction.z)));
    return mix(out, horizon, 1.0 - exp(-0.0008 * distance * distance));
}

Vec scene_light(double u, double v) {
    Vec forward = unit(sub(TARGET, EYE));
    Vec right = unit(cross(vec(0.0, 1.0, 0.0), forward));
    Vec up = cross(forward, right);
    Vec direction = unit(add(scale(forward, FOCAL_LENGTH), add(scale(right, u), scale(up, v))));

    double to_floor = direction.y < 0.0 ? (FLOOR_Y - EYE.y) / direction.y : FAR;
    double to_julia = march(EYE, direction);
    Vec light;
    if (to_julia < to_floor && to_julia < FAR) {
        light = shade_julia(along(EYE, direction, to_julia), direction);
    } else if (to_floor < FAR) {
        light = shade_floor(along(EYE, direction, to_floor), direction, to_floor);
    } else {
        light = sky(direction);
    }
    return scale(light, 1.0 - 0.10 * (u * u + v * v));
}

unsigned char scene_display(double light) {
    /* As film: bright light approaches white slowly. Then the sRGB gamma, and a little contrast. */
    double exposed = 1.0 - exp(-0.80 * fmax(light, 0.0));
    double shown = pow(exposed, 1.0 / 2.2);
    shown = 0.35 * shown + 0.65 * smoothstep(0.0, 1.0, shown);
    return (unsigned char)(255.0 * shown + 0.5);
}
