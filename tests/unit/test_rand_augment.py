"""RandAugment's operations equal those of Pillow, and are distributed evenly."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from romul_workers.tasks import rand_augment as module
from romul_workers.tasks.rand_augment import OPERATIONS, rand_augment


@pytest.fixture
def images():
    """Smooth images, dark images, and one of a single colour: shape (6, 3, 32, 32)."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    fine = [np.asarray(Image.fromarray(one).resize((32, 32))) for one in coarse]
    pixels = np.stack(fine).transpose(0, 3, 1, 2).astype(np.float32)
    pixels[1] = np.round(40 + pixels[1] / 5)
    pixels[2] = 77.0
    return torch.from_numpy(pixels)


def signs(values):
    return torch.tensor(values).reshape(-1, 1, 1, 1)


def pillow(images, operation):
    """The results of a Pillow operation, applied to each image."""
    arrays = images.numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    done = [np.asarray(operation(Image.fromarray(array))) for array in arrays]
    return torch.from_numpy(np.stack(done).transpose(0, 3, 1, 2).astype(np.float32))


@pytest.mark.parametrize(
    ("name", "strength", "operation"),
    [
        ("auto_contrast", 0.5, ImageOps.autocontrast),
        ("equalize", 0.5, ImageOps.equalize),
        ("solarize", 0.5, lambda image: ImageOps.solarize(image, 128)),
        ("posterize", 0.5, lambda image: ImageOps.posterize(image, 6)),
        ("posterize", 1.0, lambda image: ImageOps.posterize(image, 4)),
        ("color", 0.5, lambda image: ImageEnhance.Color(image).enhance(1.45)),
        ("contrast", 0.5, lambda image: ImageEnhance.Contrast(image).enhance(1.45)),
        ("brightness", 0.5, lambda image: ImageEnhance.Brightness(image).enhance(1.45)),
        ("sharpness", 0.5, lambda image: ImageEnhance.Sharpness(image).enhance(1.45)),
    ],
)
def test_an_operation_is_what_pillow_does(images, name, strength, operation):
    done = getattr(module, name)(images, strength, torch.ones(6, 1, 1, 1))
    # Pillow rounds to whole values in between.
    assert (done - pillow(images, operation)).abs().max() <= 2.0
    assert (done - images).abs().max() > 2.0


@pytest.mark.parametrize("name", ["color", "contrast", "brightness", "sharpness"])
def test_a_sign_makes_more_or_less(images, name):
    operation = getattr(module, name)
    less = operation(images, 0.5, -torch.ones(6, 1, 1, 1))
    kind = getattr(ImageEnhance, name.capitalize())
    assert (less - pillow(images, lambda image: kind(image).enhance(0.55))).abs().max() <= 2.0


def test_images_are_moved_by_whole_pixels_to_either_side(images):
    towards = signs([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    right = module.translate_x(images, 0.5, towards)
    down = module.translate_y(images, 0.5, towards)
    for i in range(6):
        wanted = torch.full((3, 32, 32), 128.0)
        if i % 2 == 0:
            wanted[:, :, :-5] = images[i, :, :, 5:]
        else:
            wanted[:, :, 5:] = images[i, :, :, :-5]
        assert torch.allclose(right[i], wanted, atol=0.01)
        turned = torch.full((3, 32, 32), 128.0)
        if i % 2 == 0:
            turned[:, :-5] = images[i, :, 5:]
        else:
            turned[:, 5:] = images[i, :, :-5]
        assert torch.allclose(down[i], turned, atol=0.01)


def test_images_are_rotated_and_sheared_as_pillow_does(images):
    # Away from corners, which come from outside of the image.
    inside = (slice(None), slice(None), slice(8, 24), slice(8, 24))
    smooth = torch.nn.functional.avg_pool2d(images, 5, 1, 2)
    rotated = module.rotate(smooth, 0.5, torch.ones(6, 1, 1, 1))
    wanted = pillow(smooth, lambda image: image.rotate(15, Image.Resampling.BILINEAR))
    assert (rotated - wanted)[inside].abs().max() <= 3.0
    sheared = module.shear_x(smooth, 0.5, torch.ones(6, 1, 1, 1))
    matrix = (1, 0.15, -0.15 * 16, 0, 1, 0)
    affine = (Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    wanted = pillow(smooth, lambda image: image.transform((32, 32), *affine))
    assert (sheared - wanted)[inside].abs().max() <= 3.0
    turned = module.shear_y(smooth.transpose(2, 3), 0.5, torch.ones(6, 1, 1, 1)).transpose(2, 3)
    assert torch.allclose(turned, sheared, atol=1e-3)


def test_without_magnitude_only_what_has_none_changes_an_image(images):
    unmoved = set(OPERATIONS) - {module.auto_contrast, module.equalize}
    for operation in unmoved:
        done = operation(images, 0.0, torch.ones(6, 1, 1, 1))
        assert torch.allclose(done, images, atol=0.01), operation
    assert len(unmoved) == 12
    assert torch.equal(rand_augment(images, 0, 5.0), images)


def test_values_stay_in_their_range_and_shapes_as_they_are(images):
    torch.manual_seed(0)
    for magnitude in (0.0, 5.0, 10.0):
        done = rand_augment(images, 3, magnitude)
        assert done.shape == images.shape
        assert done.min() >= 0.0
        assert done.max() <= 255.0


def test_each_image_undergoes_each_operation_as_often(monkeypatch):
    """This also holds if the batch size is not a multiple of 14; images keep their positions."""

    def marking(which):
        return lambda images, _strength, _signs: images + 1000.0 ** (which == 3)

    monkeypatch.setattr(module, "OPERATIONS", [marking(which) for which in range(14)])
    torch.manual_seed(0)
    places = torch.arange(20.0).reshape(20, 1, 1, 1)
    batch = places.expand(20, 3, 2, 2)
    rounds = 4000
    marked = torch.zeros(20)
    for _ in range(rounds):
        done = rand_augment(batch, 1, 5.0)
        added = (done - places)[:, 0, 0, 0]
        assert set(added.tolist()) <= {1.0, 1000.0}
        marked += added == 1000.0
    expected = rounds / 14
    assert (marked - expected).abs().max() < 5 * expected**0.5
    assert abs(marked.mean() - expected) < 5 * (expected / 20) ** 0.5


@pytest.mark.parametrize(("count", "magnitude"), [(-1, 5.0), (1, -0.1), (1, 10.1)])
def test_what_is_out_of_range_is_an_error(images, count, magnitude):
    with pytest.raises(ValueError, match=f"count {count}, magnitude {magnitude}"):
        rand_augment(images, count, magnitude)
