package store

import (
	"fmt"
	"testing"
	"time"
)

// bench10k is a store with 10,000 objects of one account.
func bench10k(b *testing.B) (s *Store, ids []string) {
	s, err := Open(b.Context(), Options{DataDir: b.TempDir(), Keys: testKeys})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	tx, err := s.write.Begin()
	if err != nil {
		b.Fatal(err)
	}
	for i := range 10_000 {
		id := s.ids.next(time.Now())
		ids = append(ids, id)
		res, err := tx.Exec(`INSERT INTO objects (id, account, name, content_type, state, is_public, create_ms, metadata, file, size)
			VALUES (?, 'anna', ?, 'tgz', 'READ_ONLY', 0, ?, '{"project":"objectmount","run":"1"}', ?, 1)`,
			id, fmt.Sprintf("datasets/part-%05d.tar.gz", i), time.Now().UnixMilli(), "00/"+id+".00")
		if err != nil {
			b.Fatal(err)
		}
		n, _ := res.LastInsertId()
		if _, err := tx.Exec("INSERT INTO metadata VALUES ('anna', 'run', ?, ?)", fmt.Sprint(i%10), n); err != nil {
			b.Fatal(err)
		}
	}
	if err := tx.Commit(); err != nil {
		b.Fatal(err)
	}
	return s, ids
}

func benchList(b *testing.B, s *Store, f func(i int) filter) {
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := s.list(b.Context(), "anna", f(i)); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkList10k lists pages of 10,000 objects; the bar is 20 ms a page.
func BenchmarkList10k(b *testing.B) {
	s, ids := bench10k(b)
	for name, f := range map[string]filter{
		"first20":    {limit: 20, total: true},
		"middle20":   {limit: 20, total: true, after: ids[5000]},
		"last20":     {limit: 20, total: true, after: ids[20]},
		"5000":       {limit: 5000, total: true},
		"none-match": {limit: 20, total: true, name: "nosuch"},
		"all-match":  {limit: 20, total: true, name: "part"},
	} {
		b.Run(name, func(b *testing.B) { benchList(b, s, func(int) filter { return f }) })
	}
}

// BenchmarkSearch10k searches 10,000 objects for an id; the bar is 20 ms.
func BenchmarkSearch10k(b *testing.B) {
	s, ids := bench10k(b)
	b.Run("id", func(b *testing.B) {
		benchList(b, s, func(i int) filter { return filter{limit: 20, total: true, search: ids[(i*7919)%len(ids)]} })
	})
	b.Run("name", func(b *testing.B) {
		benchList(b, s, func(i int) filter { return filter{limit: 20, total: true, search: fmt.Sprintf("%05d", i%10000)} })
	})
}
