import { Duplex } from 'node:stream'
import type { Machine } from './machine.ts'

/**
 * A program's standard input and output as one stream, which ends with the program, and the program with it. What it
 * says on standard error goes into the reason when it fails. The signal is for the start only: the stream outlives what
 * limits the time to connect.
 */
export async function throughProxy(local: Machine, argv: readonly string[], signal: AbortSignal): Promise<Duplex> {
  const program = await local.spawn(argv)
  const { stdin, stdout } = program
  const stream = new Duplex({
    read: () => void stdout.resume(),
    // A program that does not read ends, which tells why.
    write: (chunk, encoding, done) => stdin.write(chunk, encoding, () => done()),
    final: (done) => void stdin.end(() => done()),
    destroy: (error, done) => {
      program.kill()
      done(error)
    },
  })
  stream.on('error', () => {})
  stdout.on('data', (chunk: Buffer) => stream.push(chunk) || stdout.pause())
  let stderr = ''
  program.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk).slice(-500)
  })
  program.exited.then(({ code }) => {
    if (code === 0) stdout.readableEnded ? stream.push(null) : stdout.once('end', () => stream.push(null))
    else stream.destroy(new Error(`${argv[0]}: ${stderr.trim() || `status ${code}`}`))
  })
  if (signal.aborted) stream.destroy()
  signal.throwIfAborted()
  return stream
}
