"Naive implementations for the regularization balance, straight from the definitions."
import math

def shrink(make_opt, param, n):
    "The weight after each of `n` steps with zero gradient"
    ws = []
    opt = make_opt([param])
    for _ in range(n):
        param.grad = param.new_zeros(param.shape)
        opt.step()
        ws.append(param.item())
    return ws

def heavy_ball(lrs, wd, moms):
    "A weight with no gradient but its L2 term: v = m v + wd w; w = w - lr v"
    w,v = 1.,0.
    for lr,m in zip(lrs, moms):
        v = m*v + wd*w
        w -= lr*v
    return w

def tukey(rows, critical):
    "Tukey's honest significant difference for rows whose columns are paired; `critical(c, df)` is the studentized range's"
    c,s = len(rows),len(rows[0])
    row = [sum(r)/s for r in rows]
    col = [sum(r[j] for r in rows)/c for j in range(s)]
    all_ = sum(row)/c
    ss = sum((rows[i][j]-row[i]-col[j]+all_)**2 for i in range(c) for j in range(s))
    df = (c-1)*(s-1)
    return critical(c, df)*math.sqrt(ss/df)/math.sqrt(s)

def search(make_learner, fit, wds, seeds):
    "Every weight decay with every seed, each on a fresh learner: mean held-out losses"
    return {wd: sum(fit(make_learner(), wd, s) for s in range(seeds))/seeds for wd in wds}
