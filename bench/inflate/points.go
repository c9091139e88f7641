package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"sort"
	"time"

	"github.com/klauspost/compress/zstd"

	"objectmount/internal/inflate"
)

// pointReport says what the resume points of one spacing cost and give.
type pointReport struct {
	Spacing    int64   `json:"spacing_bytes"`
	Points     int     `json:"points"`
	RawWindows int64   `json:"raw_window_bytes"` // had all of each been kept
	IndexBytes int64   `json:"index_bytes"`      // 24 bytes a point, tables, and windows as one zstd frame each
	OneWorker  float64 `json:"one_worker_mb_s"`
	TwoWorkers float64 `json:"two_workers_mb_s"`
	ColdP50    float64 `json:"cold_4k_p50_ms"`
	ColdP90    float64 `json:"cold_4k_p90_ms"`
	ColdP99    float64 `json:"cold_4k_p99_ms"`
}

// measurePoints records points of a file and decodes from them: all ranges
// with one worker and with two, and 4 KiB at random places. Windows are kept
// as zstd frames, and decoding them is part of what is timed.
func measurePoints(ctx context.Context, name string, spacing int64, runs int) (pointReport, error) {
	f, err := os.Open(name)
	if err != nil {
		return pointReport{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return pointReport{}, err
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
	if err != nil {
		return pointReport{}, err
	}
	dec, err := zstd.NewReader(nil)
	if err != nil {
		return pointReport{}, err
	}
	defer dec.Close()

	rep := pointReport{Spacing: spacing}
	var points []inflate.Point
	r := inflate.NewReader(inflate.FromReader(f), inflate.Options{Spacing: spacing, OnPoint: func(p inflate.Point) error {
		rep.RawWindows += min(p.Out, 32<<10)
		rep.IndexBytes += 24 + int64(len(p.Tables))
		if len(p.Window) > 0 {
			p.Window = enc.EncodeAll(p.Window, nil)
		}
		rep.IndexBytes += int64(len(p.Window))
		p.Tables = bytes.Clone(p.Tables)
		points = append(points, p)
		return nil
	}})
	total, err := io.Copy(io.Discard, r)
	r.Close()
	if err != nil {
		return rep, err
	}
	rep.Points = len(points)

	open := func(_ context.Context, lo, hi int64) (inflate.Source, error) {
		return inflate.FromReader(io.NewSectionReader(f, lo, hi-lo)), nil
	}
	var one, two []float64
	for range runs {
		for workers, times := range map[int]*[]float64{1: &one, 2: &two} {
			start := time.Now()
			full := make([]inflate.Point, len(points))
			for i, p := range points {
				if p.Window, err = dec.DecodeAll(p.Window, nil); err != nil {
					return rep, err
				}
				full[i] = p
			}
			var n int64
			err := inflate.DecodeRanges(ctx, full, inflate.RangeOptions{Size: info.Size(), Workers: workers}, open,
				func(_ int64, data []byte) error { n += int64(len(data)); return nil })
			if err != nil || n != total {
				return rep, fmt.Errorf("%d workers: %d bytes of %d: %w", workers, n, total, err)
			}
			*times = append(*times, time.Since(start).Seconds())
		}
	}
	rep.OneWorker, rep.TwoWorkers = float64(total)/1e6/median(one), float64(total)/1e6/median(two)

	rnd := rand.New(rand.NewPCG(1, uint64(spacing)))
	var cold []float64
	buf := make([]byte, 4096)
	for range 500 {
		off := rnd.Int64N(total - int64(len(buf)))
		start := time.Now()
		i := sort.Search(len(points), func(i int) bool { return points[i].Out > off }) - 1
		p := points[i]
		if p.Window, err = dec.DecodeAll(p.Window, nil); err != nil {
			return rep, err
		}
		src := inflate.FromReader(io.NewSectionReader(f, p.In/8, info.Size()-p.In/8))
		r := inflate.Resume(p, src, inflate.Options{End: off + int64(len(buf))})
		if err := r.Discard(off - p.Out); err != nil {
			return rep, err
		}
		if _, err := io.ReadFull(r, buf); err != nil {
			return rep, err
		}
		r.Close()
		cold = append(cold, time.Since(start).Seconds()*1000)
	}
	slices.Sort(cold)
	rep.ColdP50, rep.ColdP90, rep.ColdP99 = cold[len(cold)/2], cold[len(cold)*9/10], cold[len(cold)*99/100]
	return rep, nil
}

// length is the decoded length of a file.
func length(name string) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	r := inflate.NewReader(inflate.FromReader(f), inflate.Options{})
	defer r.Close()
	return io.Copy(io.Discard, r)
}
