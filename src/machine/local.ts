import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { mkdir, open, stat } from 'node:fs/promises'
import { connect as connectSocket } from 'node:net'
import { dirname, join } from 'node:path'
import { type Duplex, PassThrough, Readable, Writable } from 'node:stream'
import { errorCode } from '../store/errno.ts'
import { NestvmError } from '../store/error.ts'
import type { Address, Exit, Machine, Process, SpawnOptions } from './machine.ts'

/** The host that nestvm runs on. */
export class LocalMachine implements Machine {
  readonly name = 'host'

  async spawn(argv: readonly string[], options: SpawnOptions = {}): Promise<Process> {
    if (options.tty) throw new NestvmError('UNSUPPORTED', 'the local machine gives no program a terminal of its own')
    options.signal?.throwIfAborted()
    const child = options.detach
      ? await startDetached(argv, options, options.detach.log)
      : await start(argv, options, [options.noInput ? 'ignore' : 'pipe', 'pipe', 'pipe'])
    return asProcess(child, options.signal)
  }

  async connect(address: Address, signal?: AbortSignal): Promise<Duplex> {
    signal?.throwIfAborted()
    const socket = 'unix' in address ? connectSocket(address.unix) : connectSocket(address.port, address.host)
    try {
      await once(socket, 'connect', { signal })
      // One that breaks is closed, which its users see; an error that nobody listens for would end this process.
      return socket.on('error', () => {})
    } catch (error) {
      socket.destroy()
      signal?.throwIfAborted()
      const where = 'unix' in address ? address.unix : `${address.host}:${address.port}`
      throw new NestvmError('CONNECT_FAILED', `cannot connect to ${where}: ${errorCode(error) ?? error}`, {
        details: { address, errno: errorCode(error) },
        cause: error,
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}

async function startDetached(argv: readonly string[], options: SpawnOptions, log: string): Promise<ChildProcess> {
  await mkdir(dirname(log), { recursive: true, mode: 0o700 })
  await using file = await open(log, 'a', 0o600)
  const child = await start(argv, options, ['ignore', file.fd, file.fd])
  child.unref()
  return child
}

async function start(
  argv: readonly string[],
  { env, cwd, detach }: SpawnOptions,
  stdio: ['ignore' | 'pipe', 'pipe' | number, 'pipe' | number],
): Promise<ChildProcess> {
  const [program = '', ...rest] = argv
  try {
    const child = spawn(program, rest, { cwd, env: { ...process.env, ...env }, stdio, detached: detach !== undefined })
    await once(child, 'spawn')
    return child
  } catch (error) {
    throw await explainSpawnError(error, program, cwd, env?.PATH ?? process.env.PATH)
  }
}

/** `spawn` says ENOENT for an absent program, an absent interpreter of a script and an absent directory alike. */
async function explainSpawnError(
  error: unknown,
  program: string,
  cwd: string | undefined,
  searchPath = '',
): Promise<NestvmError> {
  const code = errorCode(error)
  const fields = { details: { program, cwd, errno: code }, cause: error }
  if (cwd !== undefined && !(await isDirectory(cwd))) {
    return new NestvmError('NO_SUCH_DIRECTORY', `cannot start ${program} in ${cwd}: no such directory`, fields)
  }
  const absent = code === 'ENOENT' || code === 'ENOTDIR' || program === ''
  if (absent || (code === 'EACCES' && !existsSomewhere(program, searchPath))) {
    return new NestvmError('NOT_FOUND', `${program}: not found`, { ...fields, exitStatus: 127 })
  }
  if (code === 'EACCES') {
    return new NestvmError('NOT_EXECUTABLE', `${program}: cannot be executed`, { ...fields, exitStatus: 126 })
  }
  return new NestvmError('SPAWN_FAILED', `cannot start ${program}: ${code ?? error}`, fields)
}

/** execvp(3) also says EACCES when all that it may not enter is a directory of PATH. */
function existsSomewhere(program: string, searchPath: string): boolean {
  return program.includes('/') || searchPath.split(':').some((dir) => existsSync(join(dir, program)))
}

async function isDirectory(path: string): Promise<boolean> {
  return stat(path).then(
    (stats) => stats.isDirectory(),
    () => false,
  )
}

function asProcess(child: ChildProcess, signal: AbortSignal | undefined): Process {
  // A program that ends without reading its input is no error of ours: its exit status tells.
  child.stdin?.on('error', () => {})
  const abort = () => child.kill('SIGKILL')
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted) abort()
  const exited = new Promise<Exit>((resolve) => child.once('close', (code, name) => resolve({ code, signal: name })))
  child.once('exit', () => signal?.removeEventListener('abort', abort))
  return {
    pid: child.pid,
    stdin: child.stdin ?? nowhere(),
    stdout: kept(child.stdout),
    stderr: kept(child.stderr),
    exited,
    kill: (name = 'SIGTERM') => void child.kill(name),
    // There is no terminal to resize.
    resize: () => {},
  }
}

/** When a program ends, Node throws away what nobody has begun to read; the reader may come later. */
function kept(stream: Readable | null): Readable {
  return stream ? stream.pipe(new PassThrough()) : Readable.from([])
}

function nowhere(): Writable {
  return new Writable({ write: (_chunk, _encoding, done) => done() })
}
