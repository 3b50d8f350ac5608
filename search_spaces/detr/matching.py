"""How far one detector's queries are from another's."""

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou_loss

from search_spaces.detr.states import Boxes

L1_WEIGHT, GIOU_WEIGHT = 5.0, 2.0
"""Of boxes, as in DETR's own loss (Carion et al., arXiv 2005.12872, section A.4)."""


def distance(student: Boxes, teacher: Boxes, *, use_sigmoid: bool) -> Tensor:
    """How far a student's queries are from the teacher's that they are matched to, a scalar.

    Queries are matched one to one by class probabilities and boxes, as predictions are to objects
    in DETR. Logits are compared by the Kullback-Leibler divergence, boxes by L1 and generalised
    IoU, where the teacher sees an object the more. It is 0 where both agree.

    Args:
        student, teacher: (B, Q, …); the teacher may have more queries.
        use_sigmoid: whether classes are told apart one by one, or by a softmax whose last is none.
    """
    teacher = Boxes(teacher.logits.detach(), teacher.boxes.detach())
    pairs = zip(_each(student), _each(teacher), strict=True)
    matched = [_matched(s, t, use_sigmoid) for s, t in pairs]
    rows = torch.stack([m[0] for m in matched]), torch.stack([m[1] for m in matched])
    logits, boxes = (_taken(x, rows[0]) for x in (student.logits, student.boxes))
    wanted, places = (_taken(x, rows[1]) for x in (teacher.logits, teacher.boxes))
    weight = _probabilities(wanted, use_sigmoid)[1]  # (B, Q)
    total = weight.sum().clamp(min=1.0)
    far = (boxes - places).abs().sum(-1) * L1_WEIGHT
    overlap = generalized_box_iou_loss(
        box_convert(boxes, "cxcywh", "xyxy").flatten(0, 1),
        box_convert(places, "cxcywh", "xyxy").flatten(0, 1),
    )
    apart = far + GIOU_WEIGHT * overlap.view_as(far)
    lost: Tensor = _divergence(logits, wanted, use_sigmoid) + (weight * apart).sum()
    return lost / total


def _each(boxes: Boxes) -> list[Boxes]:
    return [Boxes(*pair) for pair in zip(boxes.logits, boxes.boxes, strict=True)]


@torch.no_grad()
def _matched(student: Boxes, teacher: Boxes, use_sigmoid: bool) -> tuple[Tensor, Tensor]:
    """Indices of the queries of one image that are matched: the student's, the teacher's."""
    a, b = (_probabilities(x.logits, use_sigmoid)[0] for x in (student, teacher))
    cost = torch.cdist(a, b, p=1) + L1_WEIGHT * torch.cdist(student.boxes, teacher.boxes, p=1)
    rows, columns = linear_sum_assignment(cost.float().nan_to_num(1e6).cpu().numpy())
    device = student.boxes.device
    return torch.as_tensor(rows, device=device), torch.as_tensor(columns, device=device)


def _probabilities(logits: Tensor, use_sigmoid: bool) -> tuple[Tensor, Tensor]:
    """Of each class, and of the likeliest that is not none."""
    if use_sigmoid:
        found = logits.sigmoid()
        return found, found.max(-1)[0]
    found = logits.softmax(-1)
    return found, found[..., :-1].max(-1)[0]


def _taken(x: Tensor, rows: Tensor) -> Tensor:
    """Some queries (B, n, …) of each image."""
    return x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))


def _divergence(logits: Tensor, wanted: Tensor, use_sigmoid: bool) -> Tensor:
    """The sum over queries of the divergence of class probabilities from the wanted ones."""
    if not use_sigmoid:
        target = wanted.log_softmax(-1)
        return F.kl_div(logits.log_softmax(-1), target, log_target=True, reduction="sum")
    target = wanted.sigmoid()
    own = F.binary_cross_entropy_with_logits(wanted, target, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, target, reduction="sum") - own
