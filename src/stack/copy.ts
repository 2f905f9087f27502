import { posix } from 'node:path'
import type { Machine, Process } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import type { Context } from './context.ts'
import { runningRecord } from './record.ts'

/** Copies as `cp -a` would, between any two machines; either place is `PATH` here, or `MACHINE:PATH`. */
export async function copy(context: Context, source: string, destination: string): Promise<void> {
  const from = await locate(context, source)
  const to = await locate(context, destination)
  const path = posix.normalize(from.path)
  // A path that ends in /. names what is in the directory, as for cp: the directory itself gets no name.
  const name = posix.basename(path.replace(/\/+$/, '')) || '.'
  const reader = await from.machine.spawn(['tar', '-C', posix.dirname(path), '-cf', '-', `./${name}`], options(context))
  const writer = await to.machine.spawn(['sh', '-c', receiveScript, 'sh', to.path, name], options(context))
  reader.stdin.end()
  writer.stdout.resume()
  const [sent, received] = [outcome(reader), outcome(writer)]
  reader.stdout.pipe(writer.stdin)
  await checkEnd(await sent, source)
  await checkEnd(await received, destination)
}

/** Unpacks beside the destination first: what fails half-way leaves nothing there. */
const receiveScript = `destination=$1 name=$2
if [ -d "$destination" ]; then dir=$destination target=$destination/$name
else dir=$(dirname "$destination") target=$destination; fi
part=$(mktemp -d "$dir/.nestvm-cp.XXXXXX") || exit 1
trap 'rm -rf "$part"' EXIT
tar -C "$part" -xf - || exit 1
if [ -d "$target" ] && [ -d "$part/$name" ]; then cp -a "$part/$name/." "$target/"
else mv -f "$part/$name" "$target"; fi`

/** A path of this host that looks like `machine:path` has to begin with ./ or /. */
async function locate(context: Context, place: string): Promise<{ machine: Machine; path: string }> {
  const match = /^([a-z0-9][a-z0-9/-]*):(.*)$/.exec(place)
  if (!match?.[1]) return { machine: context.host, path: place }
  return { machine: await context.guest(await runningRecord(match[1])), path: match[2] || '.' }
}

function options({ signal }: Context) {
  return { signal }
}

async function outcome(process: Process): Promise<{ code: number | null; stderr: string }> {
  let stderr = ''
  process.stderr.on('data', (chunk: Buffer) => {
    stderr = (stderr + chunk).slice(-2000)
  })
  return { code: (await process.exited).code, stderr }
}

async function checkEnd({ code, stderr }: { code: number | null; stderr: string }, place: string): Promise<void> {
  if (code === 0) return
  throw new NestvmError('COPY_FAILED', `${place}: ${stderr.trim() || `copying ended with status ${code}`}`)
}
