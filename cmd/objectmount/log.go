package main

import (
	"os"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger makes the one logger of a process, handed down to the rooms that log:
// for people at a terminal, JSON lines elsewhere, and without time stamps under
// a service manager, whose journal has its own.
func (a *app) logger() (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(a.logLevel)
	if err != nil {
		return nil, usagef("--log-level %q: use debug, info, warn or error", a.logLevel)
	}
	enc := zap.NewProductionEncoderConfig()
	enc.EncodeTime = zapcore.ISO8601TimeEncoder
	enc.TimeKey = "time"
	encoder := zapcore.NewJSONEncoder
	switch {
	case isTerminal(a.err):
		encoder = zapcore.NewConsoleEncoder
		enc.EncodeLevel = zapcore.CapitalColorLevelEncoder
		enc.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	case os.Getenv("JOURNAL_STREAM") != "":
		enc.TimeKey = zapcore.OmitKey
	}
	return zap.New(zapcore.NewCore(encoder(enc), zapcore.Lock(zapcore.AddSync(a.err)), level)), nil
}
