import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { kernelFiles } from '../bundle/guest/kernel.ts'
import { digestOf, type Inputs } from '../bundle/manifest.ts'
import type { Progress } from '../bundle/progress.ts'
import { locate, type Unpacked } from '../bundle/unpack.ts'
import type { Arch } from '../host/arch.ts'
import type { Machine } from '../machine/machine.ts'
import { run } from '../machine/run.ts'
import { NestvmError } from '../store/error.ts'
import { configure } from './configure.ts'
import { make } from './make.ts'
import type { Profile } from './profile.ts'
import { prepareToolchain, type ToolEnvironment } from './toolchain.ts'

interface CompileRequest {
  machine: Machine
  profile: Profile
  inputs: Inputs
  /** The unpacked package of Linux's source, and those of the compiler. */
  source: Unpacked
  tools: Unpacked
  /** For the build's files, removed by the caller. */
  scratch: string
  /** Gets the kernel's files. */
  dir: string
  log: string
  jobs: number
  progress?: Progress
  signal?: AbortSignal
}

/** Linux's names for an architecture, and for its kernel's image. */
const linux: Record<Arch, { arch: string; image: string }> = {
  x86_64: { arch: 'x86', image: 'bzImage' },
  arm64: { arch: 'arm64', image: 'Image' },
}

/** Unpacks, patches, configures and compiles Linux. */
export async function compile(request: CompileRequest): Promise<{ release: string }> {
  const { machine, profile, inputs, tools, scratch, dir, log, jobs, progress, signal } = request
  const label = `Linux ${inputs.version} for ${profile.name}`
  const env = await prepareToolchain(tools, join(scratch, 'tools'))
  const [tree, output] = [join(scratch, 'linux'), join(scratch, 'output')]
  progress?.({ phase: 'unpack', label: `the source of ${label}`, bytesDone: 0 })
  await unpackSource(request, env, tree)
  await mkdir(output)
  await applyPatches(request, env, tree)

  const { arch, image } = linux[profile.arch]
  const localVersion = `-nestvm-${digestOf(inputs).slice(0, 12)}`
  const making = { machine, env, tree, output, linuxArch: arch, jobs, localVersion, log, signal }
  await configure(making, profile)
  progress?.({ phase: 'compile', label, bytesDone: 0 })
  let compiled = 0
  await make(making, [image], (file) =>
    progress?.({ phase: 'compile', label, detail: `${++compiled} files, ${file}`, bytesDone: 0 }),
  )
  const from = { vmlinuz: `arch/${arch}/boot/${image}`, config: '.config', builtIn: 'modules.builtin' }
  await copyFile(join(output, from.vmlinuz), join(dir, kernelFiles.vmlinuz))
  await copyFile(join(output, from.config), join(dir, kernelFiles.config))
  await copyFile(join(output, 'System.map'), join(dir, 'System.map'))
  const builtIn = await readFile(join(output, from.builtIn), 'utf8').catch(() => '')
  await writeFile(join(dir, kernelFiles.builtIn), builtIn)
  return { release: (await readFile(join(output, 'include/config/kernel.release'), 'utf8')).trim() }
}

async function unpackSource(
  { machine, profile, source, signal }: CompileRequest,
  env: ToolEnvironment,
  tree: string,
): Promise<void> {
  const archive = await locate(source, `usr/src/${profile.source}.tar.xz`)
  await mkdir(tree)
  const argv = ['tar', '-C', tree, '-xJf', archive, '--strip-components=1', '--no-same-owner']
  await run(machine, argv, { env, signal, timeoutMs: 30 * 60_000 })
}

async function applyPatches({ machine, profile, signal }: CompileRequest, env: ToolEnvironment, tree: string) {
  for (const { path, text } of profile.patches) {
    const argv = ['patch', '-p1', '--batch', '--forward', '-d', tree]
    const options = { env, input: text, signal, timeoutMs: 60_000, allowFailure: true }
    const { exit, stdout } = await run(machine, argv, options)
    if (exit.code === 0) continue
    throw new NestvmError('KERNEL_PATCH', `the patch ${path} does not fit ${profile.source}`, {
      hint: 'it has to apply with patch -p1',
      details: { patch: path, output: stdout.slice(-2000) },
    })
  }
}
