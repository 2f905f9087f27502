import { once } from 'node:events'
import { createWriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine, Process } from '../machine/machine.ts'
import { NestvmError } from '../store/error.ts'
import type { ToolEnvironment } from './toolchain.ts'

export interface MakeRequest {
  machine: Machine
  env: ToolEnvironment
  /** Linux's source, and where its build's files go. */
  tree: string
  output: string
  /** In Linux's words: `x86`, `arm64`. */
  linuxArch: string
  jobs: number
  /** Appended to the version that the kernel calls itself. */
  localVersion: string
  /** Where all of make's output is kept. */
  log: string
  signal?: AbortSignal
}

/**
 * Runs Linux's make. Throws `KERNEL_BUILD_FAILED` with the lines that say why, or the signal's reason once make and
 * all that it has started have ended.
 */
export async function make(
  request: MakeRequest,
  targets: readonly string[],
  onCompiled: (file: string) => void = () => {},
): Promise<void> {
  const { machine, env, tree, output, linuxArch, jobs, localVersion, log, signal } = request
  signal?.throwIfAborted()
  const settings = [`O=${output}`, `ARCH=${linuxArch}`, `LOCALVERSION=${localVersion}`, 'HOSTLDFLAGS=-static']
  const argv = ['make', '-C', tree, `-j${jobs}`, ...settings, ...targets]
  // Not with the signal, which would end this make alone: on SIGTERM it ends those that it has started.
  const child = await machine.spawn(argv, { env: { ...env, ...reproducible }, noInput: true })
  const stop = () => child.kill('SIGTERM')
  signal?.addEventListener('abort', stop, { once: true })
  if (signal?.aborted) stop()
  const errors: string[] = []
  const file = createWriteStream(log, { flags: 'a', mode: 0o600 })
  file.on('error', () => {})
  const follow = async (stream: Process['stdout']) => {
    for await (const line of createInterface({ input: stream })) {
      file.write(`${line}\n`)
      const [, compiled] = /^ {2}[A-Z][\w+-]* +(\S+)$/.exec(line) ?? []
      if (compiled) onCompiled(compiled)
      if (/\berror\b|\*\*\*|undefined reference/i.test(line)) errors.push(line.trim())
    }
  }
  try {
    const [exit] = await Promise.all([child.exited, follow(child.stdout), follow(child.stderr)])
    signal?.throwIfAborted()
    if (exit.code === 0) return
    throw new NestvmError(
      'KERNEL_BUILD_FAILED',
      `make ${targets.join(' ')} failed: ${errors[0] ?? 'it says nothing'}`,
      {
        hint: `all that it said is in ${log}`,
        details: { targets, log, errors: errors.slice(0, 20) },
      },
    )
  } finally {
    signal?.removeEventListener('abort', stop)
    file.end()
    await Promise.race([once(file, 'close'), sleep(1000, undefined, { ref: false })])
  }
}

/** Nothing of who builds, where and when gets into the kernel. */
const reproducible = {
  KBUILD_BUILD_TIMESTAMP: '@0',
  KBUILD_BUILD_VERSION: '1',
  KBUILD_BUILD_USER: 'nestvm',
  KBUILD_BUILD_HOST: 'nestvm',
  // What a caller's environment has would change it, or end up in it.
  ...{ KCFLAGS: '', KCPPFLAGS: '', KBUILD_EXTRA_SYMBOLS: '', MAKEFLAGS: '', CROSS_COMPILE: '', HOSTCFLAGS: '' },
}
