import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Arch } from '../host/arch.ts'
import type { Machine } from '../machine/machine.ts'
import { download } from './apt/download.ts'
import { updateLists } from './apt/lists.ts'
import { type DebianPackage, planAlone, planKernel, planWithLibraries } from './apt/plan.ts'
import { type AptState, prepareApt } from './apt/state.ts'
import { type Architecture, architecture, suites } from './architecture.ts'
import type { Progress } from './progress.ts'
import { type Unpacked, unpack } from './unpack.ts'

export interface PackageRequest {
  /** The host itself: where apt runs and where the files come to lie. */
  machine: Machine
  progress?: Progress
  signal?: AbortSignal
}

/** The packages of each architecture, through an apt with fresh lists, which is set up when first asked. */
export class PackageSources {
  private readonly apts = new Map<Arch, AptState>()
  private readonly roots = new Map<Arch, Unpacked>()

  /** apt's state stays in `workDir`, packages are unpacked in `scratch`. */
  constructor(
    private readonly request: PackageRequest,
    private readonly workDir: string,
    private readonly scratch: string,
    private readonly from = suites,
  ) {}

  async plan(arch: Arch, names: readonly string[]): Promise<DebianPackage[]> {
    return planWithLibraries(await this.apt(arch), names, this.request.signal)
  }

  /** Without what they depend on. */
  async planAlone(arch: Arch, names: readonly string[]): Promise<DebianPackage[]> {
    return planAlone(await this.apt(arch), names, this.request.signal)
  }

  async planKernel(arch: Arch, kernel: Architecture['kernel']): Promise<DebianPackage[]> {
    return planKernel(await this.apt(arch), kernel, this.request.signal)
  }

  /** Downloads and unpacks, each package once. */
  async get(wanted: readonly { arch: Arch; packages: readonly DebianPackage[] }[]): Promise<void> {
    for (const arch of new Set(wanted.map((part) => part.arch))) {
      const packages = wanted.filter((part) => part.arch === arch).flatMap((part) => part.packages)
      const once = new Map(packages.map((entry) => [entry.file, entry]))
      this.roots.set(arch, await this.downloadAndUnpack(arch, [...once.values()]))
    }
  }

  unpacked(arch: Arch): Unpacked {
    const root = this.roots.get(arch)
    if (root === undefined) throw new Error(`the packages for ${arch} have not been got`)
    return root
  }

  private async apt(arch: Arch): Promise<AptState> {
    const ready = this.apts.get(arch)
    if (ready !== undefined) return ready
    const { machine, progress, signal } = this.request
    progress?.({ phase: 'lists', label: `package lists for ${arch}`, bytesDone: 0 })
    const { debian } = architecture(arch)
    const dir = join(this.workDir, debian)
    const apt = await prepareApt(machine, { dir, debianArch: debian, suites: this.from, signal })
    await updateLists(apt, signal)
    this.apts.set(arch, apt)
    return apt
  }

  private async downloadAndUnpack(arch: Arch, packages: readonly DebianPackage[]): Promise<Unpacked> {
    const { machine, progress, signal } = this.request
    const { archives } = await this.apt(arch)
    const bytesTotal = packages.reduce((sum, { size }) => sum + size, 0)
    const report = (phase: 'download' | 'unpack') => (bytesDone: number) =>
      progress?.({ phase, label: `${packages.length} packages for ${arch}`, bytesDone, bytesTotal })

    await download(await this.apt(arch), packages, { onBytes: report('download'), signal })
    const dir = join(this.scratch, `root-${arch}`)
    await mkdir(dir)
    const from = { packages, archives, dir, architecture: architecture(arch) }
    return unpack(machine, from, { onBytes: report('unpack'), signal })
  }
}
