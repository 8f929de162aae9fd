"""Triton kernels of the adaptive convolution. Triton is optional: only ``adaptive_triton`` imports this, when needed.

One program computes ``tile`` pixels of one branch of one image. Channels are padded to ``padded``, a power of two, in
registers only. Taps are a loop that stays one: unrolled it needs twice the registers. Pointers are of the first
element, strides count elements; in names of strides b is the image, c the channel, p the pixel.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(branches, count, tile: tl.constexpr):
    """Branch, image and pixels of this program; neighbouring programs share pixels, whose channels share cache lines.

    Returns:
        branch, image, (tile,) numbers of pixels, (tile,) whether they exist.
    """
    program = tl.program_id(0)
    rest = program // branches
    blocks = tl.cdiv(count, tile)
    place = (rest % blocks) * tile + tl.arange(0, tile)
    return program % branches, (rest // blocks).to(tl.int64), place, place < count


@triton.jit
def _transform(transforms, t_b, t_c, t_p, pixels, branch, image, place, live, count, width, some_pixels: tl.constexpr):
    """Matrix a b c d and shifted centers y x, each (tile,) float32."""
    start = transforms + image * t_b + branch * 6 * t_c + place * t_p
    a = tl.load(start, mask=live, other=0.0).to(tl.float32)
    b = tl.load(start + t_c, mask=live, other=0.0).to(tl.float32)
    c = tl.load(start + 2 * t_c, mask=live, other=0.0).to(tl.float32)
    d = tl.load(start + 3 * t_c, mask=live, other=0.0).to(tl.float32)
    t_y = tl.load(start + 4 * t_c, mask=live, other=0.0).to(tl.float32)
    t_x = tl.load(start + 5 * t_c, mask=live, other=0.0).to(tl.float32)
    if some_pixels:
        xy = pixels + (image * count + place) * 2
        pixel_x = tl.load(xy, mask=live, other=0)
        pixel_y = tl.load(xy + 1, mask=live, other=0)
    else:
        pixel_x = place % width
        pixel_y = place // width
    return a, b, c, d, pixel_y.to(tl.float32) + t_y, pixel_x.to(tl.float32) + t_x


@triton.jit
def _corner(y, x, height, width):
    """The upper left of the four pixels around a position, and the shares of the lower and the right ones.

    Far outside, where all four are zero, a position is moved nearer, so that it fits an integer.
    """
    y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
    x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
    top, left = tl.floor(y), tl.floor(x)
    return top.to(tl.int32), left.to(tl.int32), y - top, x - left


@triton.jit
def _inside(y, x, height, width, live):
    return live & (y >= 0) & (y < height) & (x >= 0) & (x < width)


@triton.jit
def _read(image, y, x, f_y, f_x, column, real, height, width, live):
    """(tile, padded) float32 at integer pixels; outside zero."""
    mask = _inside(y, x, height, width, live)[:, None] & real[None, :]
    return tl.load(image + (y * f_y + x * f_x)[:, None] + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _read_four(image, y, x, f_y, f_x, column, real, height, width, live):
    """Upper left, upper right, lower left and lower right of the four pixels around a position."""
    top_left = _read(image, y, x, f_y, f_x, column, real, height, width, live)
    top_right = _read(image, y, x + 1, f_y, f_x, column, real, height, width, live)
    low_left = _read(image, y + 1, x, f_y, f_x, column, real, height, width, live)
    low_right = _read(image, y + 1, x + 1, f_y, f_x, column, real, height, width, live)
    return top_left, top_right, low_left, low_right


@triton.jit
def _blend(top_left, top_right, low_left, low_right, low, right):
    top = top_left * (1.0 - right)[:, None] + top_right * right[:, None]
    bottom = low_left * (1.0 - right)[:, None] + low_right * right[:, None]
    return top * (1.0 - low)[:, None] + bottom * low[:, None]


@triton.jit
def forward_kernel(
    features, f_b, f_c, f_y, f_x,
    transforms, t_b, t_c, t_p,
    weight,
    pixels,
    out, o_b, o_c, o_p,
    branches, height, width, count,
    channels: tl.constexpr, padded: tl.constexpr, tile: tl.constexpr, some_pixels: tl.constexpr,
):  # fmt: skip
    """Nine samplings and the C x 9C product of every branch, image and pixel."""
    branch, image, place, live = _place(branches, count, tile)
    a, b, c, d, y, x = _transform(
        transforms, t_b, t_c, t_p, pixels, branch, image, place, live, count, width, some_pixels
    )
    channel = tl.arange(0, padded)
    real = channel < channels
    own = features + image * f_b + branch * channels * f_c
    kernel = weight + branch * channels * channels * 9
    kernel = kernel + channel[None, :] * (channels * 9) + channel[:, None] * 9  # rows are channels in, columns out
    both = real[:, None] & real[None, :]
    total = tl.zeros([tile, padded], dtype=tl.float32)
    for tap in range(9):
        top, left, low, right = _corner(
            y + a * (tap // 3 - 1) + b * (tap % 3 - 1), x + c * (tap // 3 - 1) + d * (tap % 3 - 1), height, width
        )
        p, q, r, s = _read_four(own, top, left, f_y, f_x, channel * f_c, real, height, width, live)
        values = _blend(p, q, r, s, low, right).to(features.dtype.element_ty)
        matrix = tl.load(kernel + tap, mask=both, other=0.0).to(features.dtype.element_ty)
        total = tl.dot(values, matrix, total, input_precision="ieee")
    target = out + image * o_b + branch * channels * o_c + channel[None, :] * o_c + place[:, None] * o_p
    tl.store(target, total.to(out.dtype.element_ty), mask=live[:, None] & real[None, :])


@triton.jit
def _add(image, y, x, f_y, f_x, column, real, height, width, live, values):
    mask = _inside(y, x, height, width, live)[:, None] & real[None, :]
    tl.atomic_add(image + (y * f_y + x * f_x)[:, None] + column[None, :], values, mask=mask, sem="relaxed")


@triton.jit
def backward_kernel(
    gradient, o_b, o_c, o_p,
    features, f_b, f_c, f_y, f_x,
    transforms, t_b, t_c, t_p,
    weight,
    pixels,
    feature_gradient, g_b, g_c, g_y, g_x,
    transform_gradient,
    branches, height, width, count,
    channels: tl.constexpr, padded: tl.constexpr, tile: tl.constexpr, some_pixels: tl.constexpr,
    want_features: tl.constexpr, want_transforms: tl.constexpr,
):  # fmt: skip
    """Gradients of features, added up by atomics in float32, and of transforms, (B, 6G, P) contiguous float32."""
    branch, image, place, live = _place(branches, count, tile)
    a, b, c, d, y, x = _transform(
        transforms, t_b, t_c, t_p, pixels, branch, image, place, live, count, width, some_pixels
    )
    channel = tl.arange(0, padded)
    real = channel < channels
    own = features + image * f_b + branch * channels * f_c
    own_gradient = feature_gradient + image * g_b + branch * channels * g_c
    kernel = weight + branch * channels * channels * 9
    kernel = kernel + channel[:, None] * (channels * 9) + channel[None, :] * 9  # rows are channels out, columns in
    both = real[:, None] & real[None, :]
    source = gradient + image * o_b + branch * channels * o_c + channel[None, :] * o_c + place[:, None] * o_p
    outer = tl.load(source, mask=live[:, None] & real[None, :], other=0.0)
    by_a = tl.zeros([tile], dtype=tl.float32)
    by_b, by_c, by_d, by_y, by_x = by_a, by_a, by_a, by_a, by_a
    for tap in range(9):
        top, left, low, right = _corner(
            y + a * (tap // 3 - 1) + b * (tap % 3 - 1), x + c * (tap // 3 - 1) + d * (tap % 3 - 1), height, width
        )
        matrix = tl.load(kernel + tap, mask=both, other=0.0).to(outer.dtype)
        by_value = tl.dot(outer, matrix, input_precision="ieee")
        if want_transforms:
            p, q, r, s = _read_four(own, top, left, f_y, f_x, channel * f_c, real, height, width, live)
            across = (q - p) * (1.0 - low)[:, None] + (s - r) * low[:, None]
            down = (r - p) * (1.0 - right)[:, None] + (s - q) * right[:, None]
            tap_x, tap_y = tl.sum(by_value * across, axis=1), tl.sum(by_value * down, axis=1)
            by_a += tap_y * (tap // 3 - 1)
            by_b += tap_y * (tap % 3 - 1)
            by_c += tap_x * (tap // 3 - 1)
            by_d += tap_x * (tap % 3 - 1)
            by_y += tap_y
            by_x += tap_x
        if want_features:
            upper, lower = by_value * (1.0 - low)[:, None], by_value * low[:, None]
            l_share, r_share = (1.0 - right)[:, None], right[:, None]
            column = channel * g_c
            _add(own_gradient, top, left, g_y, g_x, column, real, height, width, live, upper * l_share)
            _add(own_gradient, top, left + 1, g_y, g_x, column, real, height, width, live, upper * r_share)
            _add(own_gradient, top + 1, left, g_y, g_x, column, real, height, width, live, lower * l_share)
            _add(own_gradient, top + 1, left + 1, g_y, g_x, column, real, height, width, live, lower * r_share)
    if want_transforms:
        target = transform_gradient + (image * branches + branch) * 6 * count + place
        tl.store(target, by_a, mask=live)
        tl.store(target + count, by_b, mask=live)
        tl.store(target + 2 * count, by_c, mask=live)
        tl.store(target + 3 * count, by_d, mask=live)
        tl.store(target + 4 * count, by_y, mask=live)
        tl.store(target + 5 * count, by_x, mask=live)


@triton.jit
def weight_kernel(
    gradient, o_b, o_c, o_p,
    features, f_b, f_c, f_y, f_x,
    transforms, t_b, t_c, t_p,
    pixels,
    parts,
    images, branches, splits, height, width, count,
    channels: tl.constexpr, padded: tl.constexpr, tile: tl.constexpr, some_pixels: tl.constexpr,
):  # fmt: skip
    """Gradient of one tap's matrix over every splits-th block of pixels, to (splits, 9, G, padded out, padded in).

    Without atomics, so that the sum over splits has one order.
    """
    program = tl.program_id(0)
    branch = program % branches
    tap = (program // branches) % 9
    split = program // branches // 9
    down = (tap // 3 - 1).to(tl.float32)
    across = (tap % 3 - 1).to(tl.float32)
    channel = tl.arange(0, padded)
    real = channel < channels
    blocks = tl.cdiv(count, tile)
    total = tl.zeros([padded, padded], dtype=tl.float32)
    for block in range(split, blocks * images, splits):
        image = (block // blocks).to(tl.int64)
        place = (block % blocks) * tile + tl.arange(0, tile)
        live = place < count
        a, b, c, d, y, x = _transform(
            transforms, t_b, t_c, t_p, pixels, branch, image, place, live, count, width, some_pixels
        )
        top, left, low, right = _corner(y + a * down + b * across, x + c * down + d * across, height, width)
        own = features + image * f_b + branch * channels * f_c
        p, q, r, s = _read_four(own, top, left, f_y, f_x, channel * f_c, real, height, width, live)
        source = gradient + image * o_b + branch * channels * o_c + channel[None, :] * o_c + place[:, None] * o_p
        outer = tl.load(source, mask=live[:, None] & real[None, :], other=0.0)
        values = _blend(p, q, r, s, low, right).to(outer.dtype)
        total = tl.dot(tl.trans(outer), values, total, input_precision="ieee")
    start = parts + ((split * 9 + tap) * branches + branch) * (padded * padded)
    tl.store(start + channel[:, None] * padded + channel[None, :], total)
