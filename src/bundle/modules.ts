/**
 * The modules to load, each after those it depends on. `wanted` may use - or _; what is built into the kernel is
 * left out. Throws for a module that the kernel has in neither form.
 *
 * @param dependenciesOf names of the modules that one needs, undefined when there is no such module
 * @returns names with _ throughout, as the kernel shows them
 */
export async function loadOrder(
  wanted: readonly string[],
  builtIn: ReadonlySet<string>,
  dependenciesOf: (name: string) => Promise<string[] | undefined>,
): Promise<string[]> {
  const order = new Set<string>()
  async function add(name: string): Promise<void> {
    if (builtIn.has(name) || order.has(name)) return
    const dependencies = await dependenciesOf(name)
    if (dependencies === undefined) throw new Error(`the kernel has no module ${name}`)
    for (const dependency of dependencies) await add(moduleName(dependency))
    order.add(name)
  }
  for (const name of wanted) await add(moduleName(name))
  return [...order]
}

/** `kernel/drivers/crypto/virtio-rng.ko.xz` to `virtio_rng`: the kernel takes - and _ for the same. */
export function moduleName(path: string): string {
  const base = path.slice(path.lastIndexOf('/') + 1).replace(/\.ko(\.\w+)?$/, '')
  return base.replaceAll('-', '_')
}

/** The `depends=` line of a module's .modinfo section: NUL-separated KEY=VALUE strings. */
export function moduleDependencies(module: Buffer): string[] {
  const key = '\0depends='
  // A module with nothing in front of it in the section does not occur: `license=` or an alias comes first.
  const start = module.indexOf(key, 0, 'latin1')
  if (start < 0) return []
  const end = module.indexOf(0, start + key.length)
  const value = module.toString('latin1', start + key.length, end)
  return value === '' ? [] : value.split(',')
}
