package main

import (
	"math"
	"slices"
)

// spread is the median of some values between the lowest and the highest of them, and their quarters.
type spread struct {
	median, low, high float64
	lower, upper      float64 // a quarter of the values lies below, and above
	n                 int
}

// over returns the spread of some values, of which there may be none: then n is 0.
func over(v []float64) spread {
	n := len(v)
	if n == 0 {
		return spread{}
	}
	v = slices.Sorted(slices.Values(v))
	return spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1], v[(n-1)/4], v[n-1-(n-1)/4], n}
}

// each applies f to a spread's values; a decreasing f exchanges lowest and highest.
func (s spread) each(f func(float64) float64) spread {
	lo, hi := f(s.low), f(s.high)
	a, b := f(s.lower), f(s.upper)
	return spread{f(s.median), min(lo, hi), max(lo, hi), min(a, b), max(a, b), s.n}
}

func values(samples []sample) []float64 {
	out := make([]float64, len(samples))
	for i, s := range samples {
		out[i] = s.value
	}
	return out
}

// ones are as many samples of the same rounds, each 1.
func ones(of []sample) []sample {
	out := slices.Clone(of)
	for i := range out {
		out[i].value = 1
	}
	return out
}

// ratios returns a/b for each round that has both.
func ratios(a, b []sample) []float64 {
	base := make(map[int]float64, len(b))
	for _, s := range b {
		base[s.round] = s.value
	}
	var out []float64
	for _, s := range a {
		if d, ok := base[s.round]; ok && d > 0 {
			out = append(out, s.value/d)
		}
	}
	return out
}

// growth returns, for each round that has more than one of the series, the largest value
// over the smallest: 1 if nothing grows.
func growth(series ...[]sample) []float64 {
	type bounds struct {
		lo, hi float64
		n      int
	}
	rounds := map[int]bounds{}
	for _, samples := range series {
		for _, s := range samples {
			b, ok := rounds[s.round]
			if !ok {
				b = bounds{lo: s.value, hi: s.value}
			}
			rounds[s.round] = bounds{min(b.lo, s.value), max(b.hi, s.value), b.n + 1}
		}
	}
	var out []float64
	for _, b := range rounds {
		switch {
		case b.n < 2:
		case b.hi == b.lo:
			out = append(out, 1) // also if both are 0
		case b.lo > 0:
			out = append(out, b.hi/b.lo)
		default:
			out = append(out, math.Inf(1))
		}
	}
	return out
}
