"""Tiny networks and data sets, for whichever Lightning package a test is about."""

import importlib

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

CLASSES = 3
#: Weights with which another decoder wins each: sure as it is, far too unsure, too sure.
SCALES = (1.0, 0.3, 6.0)


class Blobs(Dataset):
    """Noisy images of a disc and a bar on background; every item differs in how hard it is.

    Those numbered in ``nan`` hold one pixel of which a network makes NaN.
    """

    def __init__(self, items=7, size=(16, 12), classes=CLASSES, ignore=None, seed=0, nan=()):
        generator = torch.Generator().manual_seed(seed)
        self.items = []
        for item in range(items):
            labels = torch.zeros(size, dtype=torch.long)
            for c in range(1, classes):
                corner = [int(torch.randint(0, max(1, n - 4), (1,), generator=generator)) for n in size]
                labels[tuple(slice(a, a + 3 + c) for a in corner)] = c
            noise = torch.rand(1, generator=generator) + 0.3
            image = labels.float().unsqueeze(0) + noise * torch.randn(1, *size, generator=generator)
            if ignore is not None:
                labels = labels.masked_fill(torch.rand(size, generator=generator) < 0.1, ignore)
            if item in nan:
                image.view(-1)[5] = torch.nan
            self.items.append((image, labels))

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def loader(batch_size=3, **options):
    return DataLoader(Blobs(**options), batch_size=batch_size)


def network(classes=CLASSES, dims=2, seed=0):
    """Two convolutions with fixed weights; unsure enough for argmax and RankSEG to differ."""
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dims]
    generator = torch.Generator().manual_seed(seed)
    net = nn.Sequential(conv(1, 6, 3, padding=1), nn.ReLU(), conv(6, classes, 1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.6)
    return net


def module_class(package):
    """A segmentation LightningModule of ``package`` (``"lightning.pytorch"`` or ``"pytorch_lightning"``)."""
    pl = importlib.import_module(package)

    class Segmenter(pl.LightningModule):
        def __init__(self, net=None):
            super().__init__()
            self.net = net or network()

        def forward(self, image):
            return self.net(image)

        def _step(self, batch):
            image, target = batch
            logits = self(image)
            if logits.shape[1] == 1:
                loss = nn.functional.binary_cross_entropy_with_logits(logits[:, 0], target.clamp(max=1).float())
            else:
                loss = nn.functional.cross_entropy(logits, target, ignore_index=255)
            return {"loss": loss, "logits": logits, "target": target}

        def training_step(self, batch, batch_idx):
            return self._step(batch)

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return self._step(batch)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return self._step(batch)

        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return {"logits": self(batch[0])}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05)

    return Segmenter


class Drawn(Dataset):
    """Logits, and labels drawn from their softmax: a network that knows exactly how sure it is."""

    def __init__(self, items=24, size=(12, 12), seed=0, ignore=None):
        generator = torch.Generator().manual_seed(seed)
        bias = torch.tensor([0.8, -0.5, -0.8]).view(1, CLASSES, *[1] * len(size))
        self.logits = torch.randn(items, CLASSES, *size, generator=generator) + bias
        draws = torch.rand(items, 1, *size, generator=generator)
        self.labels = (self.logits.softmax(1).cumsum(1) < draws).sum(1).clamp(max=CLASSES - 1)
        if ignore is not None:
            self.labels[torch.rand(self.labels.shape, generator=generator) < 0.1] = ignore

    def __len__(self):
        return len(self.logits)

    def __getitem__(self, index):
        return self.logits[index], self.labels[index]


def batches(**options):
    return DataLoader(Drawn(**options), batch_size=5)


def scaling_class(package):
    """A LightningModule that is too sure or too unsure: its logits are those of the batch times a weight.

    ``by_epoch`` are the weights that its training arrives at, one for each epoch.
    """
    pl = importlib.import_module(package)

    class Scaling(pl.LightningModule):
        def __init__(self, scale=1.0, by_epoch=()):
            super().__init__()
            self.scale, self.by_epoch = nn.Parameter(torch.tensor(scale)), by_epoch

        def training_step(self, batch, batch_idx):
            return (self.scale - self.by_epoch[self.current_epoch]).abs()

        def on_train_batch_end(self, *args):
            self.scale.data.fill_(self.by_epoch[self.current_epoch])

        def validation_step(self, batch, batch_idx, dataloader_idx=0):
            return {"logits": self.scale * batch[0], "target": batch[1]}

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return self.validation_step(batch, batch_idx)

        def predict_step(self, batch, batch_idx, dataloader_idx=0):
            return {"logits": self.scale * batch[0]}

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.0)

    return Scaling


def trainer(package, root, **options):
    pl = importlib.import_module(package)
    quiet = dict(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(root),
    )
    return pl.Trainer(**{**quiet, **options})
