import { moduleAliases, moduleDependencies, moduleName } from '../modules.ts'
import type { Module } from './kernel.ts'

/** Where a guest finds modules: those of the base, and beside them those of the layer while that is mounted. */
export const moduleDir = (release: string) => `lib/modules/${release}`
export const layerLink = 'layer'

/**
 * The files by which modprobe, and the kernel through it, finds modules and what they need: modules.dep with paths
 * below `moduleDir`, and modules.alias. See modules.dep(5).
 */
export function moduleIndex(base: readonly Module[], layer: readonly Module[]): Map<string, string> {
  const all = [...base, ...layer]
  const pathOf = new Map([
    ...base.map(({ name }) => [name, `${name}.ko`] as const),
    ...layer.map(({ name }) => [name, `${layerLink}/${name}.ko`] as const),
  ])
  const needs = new Map(all.map(({ name, data }) => [name, moduleDependencies(data).map(moduleName)]))
  const dep = all.map(({ name }) => {
    const paths = closure(name, needs).flatMap((needed) => pathOf.get(needed) ?? [])
    return `${pathOf.get(name)}: ${paths.join(' ')}`.trimEnd()
  })
  const alias = all.flatMap(({ name, data }) => moduleAliases(data).map((pattern) => `alias ${pattern} ${name}`))
  return new Map([
    ['modules.dep', lines(dep)],
    ['modules.alias', lines(alias)],
  ])
}

/** All that a module needs, what is to be loaded last first; what is built into the kernel is left out. */
function closure(name: string, needs: ReadonlyMap<string, readonly string[]>): string[] {
  const found: string[] = []
  const visit = (each: string) => {
    for (const needed of needs.get(each) ?? []) if (!found.includes(needed)) visit(needed)
    if (!found.includes(each)) found.push(each)
  }
  visit(name)
  return found.slice(0, -1).reverse()
}

const lines = (all: readonly string[]) => all.map((line) => `${line}\n`).join('')
