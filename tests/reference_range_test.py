"Naive implementations for the range test: a loop that anyone would write, and sums over all segments."
import copy, math, statistics
import torch

def sweep(model, loss_func, batches, valid, lrs, mom=0., due=(), wd=0.):
    "SGD with momentum, one LR for each step. `[(step, held-out loss, held-out accuracy)]`, the training losses, and the trained copy of the model"
    model = copy.deepcopy(model)
    bufs = [torch.zeros_like(p) for p in model.parameters()]
    rows,losses,steps = [],[],iter(batches)
    def evaluate(step):
        model.eval()
        with torch.no_grad(): preds = [(model(x), y) for x,y in valid]
        n = sum(len(y) for _,y in preds)
        rows.append((step, sum(loss_func(p, y).item()*len(y) for p,y in preds)/n, sum((p.argmax(1)==y).sum().item() for p,y in preds)/n))
        model.train()
    evaluate(0)
    for step,lr in enumerate(lrs, 1):
        x,y = next(steps)
        loss = loss_func(model(x), y)
        for p in model.parameters(): p.grad = None
        loss.backward()
        losses.append(loss.item())
        with torch.no_grad():
            for p,b in zip(model.parameters(), bufs):
                if p.ndim > 1: p.mul_(1-lr*wd) # not for biases and BatchNorm
                b.mul_(mom).add_(p.grad)
                p.sub_(lr*b)
        if step in due: evaluate(step)
    return rows,losses,model

def segment(y):
    "Largest sum of any contiguous segment"
    return max(sum(y[a:b]) for a in range(len(y)) for b in range(a+1, len(y)+1))

def reached(y, noise):
    "Largest lower bound `mean - noise/sqrt(m)` of any contiguous segment of `m` points"
    return max(sum(y[a:b])/(b-a) - noise/math.sqrt(b-a) for a in range(len(y)) for b in range(a+1, len(y)+1))

def noise(y):
    "From the second differences, by their median; by that of the others if most are 0 and the rest are more than a few jumps"
    d = [abs(a-2*b+c) for a,b,c in zip(y, y[1:], y[2:])]
    jumps = [v for v in d if v>0]
    if statistics.median(d)==0 and len(jumps)>8: d = jumps
    return statistics.median(d)/.6745/math.sqrt(6)
