import type { DebianPackage } from '../bundle/apt/plan.ts'
import { directoryName, type Inputs, sha256 } from '../bundle/manifest.ts'
import type { Profile } from './profile.ts'

/** To be raised when the code that builds makes something else of the same inputs. */
const revision = 1

/** Of the profile's part of what decides a kernel: known without asking apt. */
export function recipeOf({ arch, suite, source, base, fragments, patches }: Profile): string {
  const from = 'target' in base ? base : { file: base.file.text }
  const texts = { fragments: fragments.map(({ text }) => text), patches: patches.map(({ text }) => text) }
  return sha256(JSON.stringify({ revision, arch, suite, source, base: from, ...texts }))
}

/** All that decides a kernel: the profile, Linux's source, and the compiler. */
export function kernelInputs(profile: Profile, packages: readonly DebianPackage[]): Inputs {
  const { name, arch, source } = profile
  const version = packages.find((entry) => entry.name === source)?.version
  const sorted = packages.toSorted((a, b) => (a.name < b.name ? -1 : 1))
  return { kind: 'kernel', arch, recipe: recipeOf(profile), packages: sorted, profile: name, version }
}

/** Of the directory, and of ready-made kernels: `kernel-6.1.176-1-x86_64-0123456789abcdef`. */
export const kernelName = directoryName
