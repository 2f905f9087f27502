import { type ChildProcess, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

/** The built program, as its users run it. */
export const program = join(import.meta.dirname, '../../dist/nestvm.js')

export interface Result {
  status: number | null
  stdout: string
  stderr: string
}

/** With another kernel for the guests, where NESTVM_TEST_KERNEL names a profile whose kernel is there. */
function withKernel(args: readonly string[]): readonly string[] {
  const profile = process.env.NESTVM_TEST_KERNEL
  return profile && args[0] === 'run' && !args.includes('--on')
    ? ['run', '--kernel-profile', profile, ...args.slice(1)]
    : args
}

/** A user's directories of one test file, so that its machines are its own; the bundle is the real user's. */
export class Home implements AsyncDisposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'nvt-'))
  readonly env: NodeJS.ProcessEnv = {
    ...process.env,
    XDG_STATE_HOME: join(this.dir, 'state'),
    XDG_CACHE_HOME: join(this.dir, 'cache'),
    XDG_RUNTIME_DIR: this.dir,
  }

  /** What starts nestvm, for example in a namespace. */
  within: string[] = []

  /** Images of its own too, but the real user's bundle. */
  ownImages(): void {
    const shared = join(process.env.XDG_DATA_HOME ?? join(homedir(), '.local/share'), 'nestvm/bundle')
    this.env.XDG_DATA_HOME = join(this.dir, 'data')
    mkdirSync(join(this.dir, 'data/nestvm'), { recursive: true })
    symlinkSync(shared, join(this.dir, 'data/nestvm/bundle'))
  }

  start(...args: string[]): ChildProcess {
    const [command = '', ...rest] = [...this.within, process.execPath, program, ...withKernel(args)]
    return spawn(command, rest, { env: this.env, stdio: ['pipe', 'pipe', 'pipe'] })
  }

  /** Runs nestvm to its end, with a limit that no healthy command comes near. */
  async run(args: string[], { input = '', timeoutMs = 600_000 } = {}): Promise<Result> {
    const child = this.start(...args)
    child.stdin?.on('error', () => {}).end(input)
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs)
    const result = await finished(child)
    clearTimeout(timer)
    return result
  }

  /** The same, for commands that must succeed. */
  async ok(...args: string[]): Promise<string> {
    const { status, stdout, stderr } = await this.run(args)
    if (status !== 0) throw new Error(`nestvm ${args.join(' ')} ended with ${status}:\n${stderr}${stdout}`)
    return stdout
  }

  async json<T>(...args: string[]): Promise<T> {
    const value: T = JSON.parse(await this.ok(...args, '--json'))
    return value
  }

  /** What a run of nestvm must not leave behind: engines, what serves them, records, sockets. */
  async traces(): Promise<string[]> {
    const engines = [...enginesOf(this.dir), ...serversOf(this.dir)].map((pid) => `process ${pid}`)
    const files = readdirSync(this.dir, { recursive: true, encoding: 'utf8' })
    const left = files.filter((path) => /machines\/.|^nestvm\/./.test(path))
    return [...engines, ...left]
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pid of enginesOf(this.dir)) process.kill(pid, 'SIGKILL')
    while (enginesOf(this.dir).length + serversOf(this.dir).length > 0) await sleep(20)
    rmSync(this.dir, { recursive: true, force: true })
  }
}

export async function finished(child: ChildProcess): Promise<Result> {
  const output = { stdout: '', stderr: '' }
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    output.stdout += text
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    output.stderr += text
  })
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { status, ...output }
}

/** Waits for what a program writes. */
export function said(
  child: ChildProcess,
  words: string | RegExp,
  stream: 'stdout' | 'stderr' = 'stdout',
): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    child[stream]?.on('data', (chunk: Buffer) => {
      text += chunk
      if (text.match(words)) resolve(text)
    })
    child.once('close', () => reject(new Error(`it ended without saying ${words}: ${text}`)))
  })
}

/** Ctrl-C once a command runs that says `caught` and ends with 9 then. */
export async function runWithCtrlC(home: Home): Promise<Result> {
  const script = 'trap "echo caught; exit 9" INT; echo ready; while :; do sleep 0.2; done'
  const child = home.start('run', '--', 'sh', '-c', script)
  const result = finished(child)
  await said(child, 'ready')
  child.kill('SIGINT')
  return result
}

/** The pids of all QEMUs whose files lie in a directory. */
export function enginesOf(dir: string): number[] {
  return processes((line) => line.includes('-pidfile') && line.includes(dir))
}

/** The pids of what serves machines whose files lie in a directory: ways out, and volumes. */
export function serversOf(dir: string): number[] {
  return processes((line) => /\/bin\/passt\0|\0volume-server\0/.test(line) && line.includes(dir))
}

function processes(wanted: (commandLine: string) => boolean): number[] {
  const pids = readdirSync('/proc').filter((name) => /^\d+$/.test(name))
  return pids.map(Number).filter((pid) => {
    try {
      return wanted(readFileSync(`/proc/${pid}/cmdline`, 'latin1'))
    } catch {
      return false
    }
  })
}
